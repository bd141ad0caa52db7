"""One connection to the ledger's Redis: scripts by name, timeouts and repeats, errors with a cause and a remedy."""

from __future__ import annotations

import functools
import importlib.resources
import re
import socket
from collections.abc import Callable
from typing import Any, Final, Self

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from proxy_worker.contract.errors import ConfigurationError, LedgerError
from proxy_worker.ledger.access import FleetConnection, RedisAccess, reached
from proxy_worker.ledger.errors import (
    LedgerCertificateError,
    LedgerFullError,
    LedgerPasswordError,
    LedgerProtocolError,
    LedgerReadOnlyError,
    LedgerUnavailableError,
)

KEY_PREFIX: Final = "{pf}:"
"""In front of every key; the braces make Redis keep them together."""
SOCKET_TIMEOUT_S: Final = 5.0
_CERTIFICATE_TROUBLE: Final = re.compile(r"certificate|\[SSL|_ssl\.c|tls|alert ", re.IGNORECASE)
_NOT_ALLOWED_IN_SCRIPT: Final = re.compile(r"ACL failure in script|The user executing the script")
KEEPALIVE: Final[dict[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items()
        if hasattr(socket, name)
    },
}
"""A peer that vanished without a word, as behind a cut cable, is noticed within 25 s; by default, in hours."""
REPEATS: Final = 2
"""Every script may be repeated, so a call whose connection broke is; more patience is the caller's decision."""


@functools.cache
def _source(name: str) -> str:
    folder = importlib.resources.files(__package__) / "lua"
    return (folder / "schema.lua").read_text() + (folder / f"{name}.lua").read_text()


class Connection:
    """A client of its own for each process: made after the fork, safe to share between threads."""

    def __init__(self, url: str | RedisAccess, *, password: str | None = None) -> None:
        """Connect lazily. `url` is `redis://host:port/db` or the like, without a password, or all of an access."""
        access = reached(url, password)
        self.where = access.where
        options: dict[str, Any] = {"connection_class": FleetConnection} | access.certificates if access.tls else {}
        if access.username is not None:
            options["username"] = access.username
        try:
            self._redis = redis.Redis.from_url(
                access.url,
                password=access.password,
                decode_responses=True,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                **({} if access.url.startswith("unix:") else KEEPALIVE),
                retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), REPEATS),
                **options,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"Redis URL {self.where!r}", why=str(error), remedy="Write it as redis://host:6379/0."
            ) from error
        self._scripts: dict[str, Callable[..., Any]] = {}

    def close(self) -> None:
        """Close its sockets; idempotent."""
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, script: str, *arguments: str | float) -> Any:
        """The answer of `lua/<script>.lua`; raises the errors of `errors.py`."""
        try:
            run = self._scripts[script]
        except KeyError:
            run = self._scripts[script] = self._redis.register_script(_source(script))
        try:
            return run(keys=[KEY_PREFIX], args=list(arguments))
        except (RedisError, OSError) as error:
            raise self._explained(error) from error

    def _bell(self, timeout_s: float) -> bool:
        try:
            # A server that is about to answer must not run into the socket's own time-out.
            return bool(self._redis.blpop([f"{KEY_PREFIX}bell"], timeout=min(timeout_s, SOCKET_TIMEOUT_S / 2)))
        except (RedisError, OSError) as error:
            raise self._explained(error) from error

    def _run_id(self) -> str:
        try:
            return str(self._redis.info("server")["run_id"])
        except (RedisError, OSError) as error:
            raise self._explained(error) from error

    def _unreached(self, text: str) -> LedgerError:
        what = f"ledger in Redis at {self.where}"
        if _CERTIFICATE_TROUBLE.search(text):
            return LedgerCertificateError(
                what,
                why=f"TLS finds no agreement ({text})",
                remedy="Check ca_file, certificate and key below [redis], and `scheduler pki list` for expiry; "
                "the server's certificate must name the host in the URL.",
            )
        return LedgerUnavailableError(
            what, why=f"no answer ({text})", remedy="Check that Redis runs and can be reached from here."
        )

    def _explained(self, error: Exception) -> LedgerError:
        what = f"ledger in Redis at {self.where}"
        text = str(error)
        refused = isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError))
        if refused or _NOT_ALLOWED_IN_SCRIPT.search(text):
            return LedgerPasswordError(
                what,
                why=f"Redis refuses the password or the user ({text})",
                remedy="Put the right password into the secret that [redis] credential names.",
            )
        if unwritable := _unwritable(what, error, text):
            return unwritable
        if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)) or text.startswith(
            ("LOADING", "MASTERDOWN", "BUSY")
        ):
            return self._unreached(text)
        if isinstance(error, ResponseError):
            return LedgerProtocolError(
                what, why=f"unexpected answer ({text})", remedy="Use Redis 7 or Valkey 8 or newer, with Lua."
            )
        return LedgerUnavailableError(what, why=text)


def _unwritable(what: str, error: Exception, text: str) -> LedgerError | None:
    """What keeps a server that answers from writing."""
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return LedgerFullError(
            what,
            why="Redis has reached its maxmemory and evicts nothing",
            remedy="Raise maxmemory, or remove from that Redis what isn't proxyfleet's.",
        )
    if text.startswith("MISCONF"):
        return LedgerFullError(
            what, why=f"Redis can't write to its own disk ({text})", remedy="Make room on the Redis server."
        )
    if isinstance(error, ReadOnlyError) or text.startswith(("READONLY", "NOREPLICAS")):
        return LedgerReadOnlyError(
            what,
            why=f"Redis answers and takes no writes ({text})",
            remedy="Make it a primary again (REPLICAOF NO ONE), or see to the replicas that it waits for.",
        )
    return None
