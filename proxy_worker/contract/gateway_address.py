"""Addresses of what gateways offer: `proxyfleet://host:port/name`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import is_name

SCHEME: Final = "proxyfleet://"
DEFAULT_PORT: Final = 7443


class GatewayAddressError(ConfigurationError):
    """An address that nothing can be reached by over a link."""


@dataclass(frozen=True)
class GatewayAddress:
    """Where a gateway listens, and the name of what it offers."""

    host: str
    port: int
    name: str

    @classmethod
    def parsed(cls, text: str) -> Self:
        """From `proxyfleet://host:port/name`; without a port, 7443. Raises `GatewayAddressError`."""
        parts = urlsplit(text)
        try:
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            host, port = None, 0
        name = parts.path.removeprefix("/")
        whole = text == f"{SCHEME}{parts.netloc}/{name}" and parts.username is None
        if host is None or not whole or not is_name(name):
            raise GatewayAddressError(
                f"address {text[:200]!r}", why=f"it isn't of the form {SCHEME}HOST:PORT/NAME", remedy="Write it so."
            )
        return cls(host, port, name)

    @property
    def target(self) -> str:
        """Host and port, as one writes them together."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
