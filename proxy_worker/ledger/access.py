"""How a program gets at its Redis: address, user, password, and certificates for TLS.

The same answers serve the ledger's client and Celery's, so that no connection is less protected than another.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import redis

TLS_SCHEME: Final = "rediss"


class FleetConnection(redis.SSLConnection):
    """TLS that trusts the fleet's authority and no other, and honours the revocations that come with it.

    redis-py's own adds the given authority to those that the system trusts: any of them could then vouch for a
    false server. Certificates and keys are read at every connection, so that renewed ones need no restart.
    """

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca_certs)
        if context.cert_store_stats()["crl"]:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile)
        return context.wrap_socket(sock, server_hostname=self.host)


@dataclass(frozen=True)
class RedisAccess:
    """All that reaching a Redis takes. Never shown whole: its password is left out of its `repr`."""

    url: str
    """`redis://host:port/db`, `rediss://…` (TLS) or `unix:///path`, without a password."""
    username: str | None = None
    """The ACL user; None: the one in the URL, or `default`."""
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """PEM: the authority that must have certified the server, and what it has revoked; None: the system's."""
    certificate: Path | None = None
    """PEM: what this program shows the server, where the server asks for it."""
    key: Path | None = None
    """PEM: its key."""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and the server's certificate verified."""
        return urlsplit(self.url).scheme == TLS_SCHEME

    @property
    def where(self) -> str:
        """The URL for people: without any password."""
        parts = urlsplit(self.url)
        if parts.password is None:
            return self.url
        user = f"{parts.username}@" if parts.username else ""
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{user}{host}{port}{parts.path}"

    @property
    def certificates(self) -> dict[str, Any]:
        """What redis-py's TLS connections are told, and Celery's as `broker_use_ssl`."""
        return {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": _text(self.ca_file),
            "ssl_certfile": _text(self.certificate),
            "ssl_keyfile": _text(self.key),
        }

    def broker_url(self) -> str:
        """The URL as Celery wants it, with user and password in it; keep it out of logs and command lines."""
        if self.url.startswith("unix://"):
            path = self.url.removeprefix("unix://")
            return f"redis+socket://{self._login('')}{path}"
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{self._login(parts.username or '')}{host}"))

    def _login(self, user_in_url: str) -> str:
        user = quote(self.username or user_in_url, safe="")
        if self.password is None:
            return f"{user}@" if user else ""
        return f"{user}:{quote(self.password, safe='')}@"


def reached(url: str | RedisAccess, password: str | None = None) -> RedisAccess:
    """Access by nothing but a URL and a password, or as it was given."""
    return url if isinstance(url, RedisAccess) else RedisAccess(url, password=password)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
