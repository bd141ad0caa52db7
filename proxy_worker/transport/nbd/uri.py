"""NBD URIs: `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`, and `nbds` for TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from proxy_worker.contract.errors import ConfigurationError

DEFAULT_PORT: Final = 10809
_LONGEST_NAME_BYTES: Final = 4096
_SCHEMES: Final = {
    "nbd": (False, False),
    "nbds": (True, False),
    "nbd+unix": (False, True),
    "nbds+unix": (True, True),
}
_PARAMETERS: Final = {"socket", "tls-certificates", "tls-hostname"}


class NbdUriError(ConfigurationError):
    """A text isn't an NBD URI that this client understands."""


@dataclass(frozen=True)
class NbdUri:
    """Where an export is."""

    text: str
    export: str
    host: str = ""
    port: int = DEFAULT_PORT
    socket_path: str = ""
    """Of a Unix socket; then host and port mean nothing."""
    tls: bool = False
    tls_hostname: str = ""
    """The name that the server's certificate must bear."""
    tls_certificates: Path | None = None
    """A folder with `ca-cert.pem` and, for a client certificate, `client-cert.pem` and `client-key.pem`."""

    def __str__(self) -> str:
        return self.text


def is_nbd_uri(text: str) -> bool:
    """Whether a text is meant to be an NBD URI rather than a path."""
    return text.partition("://")[0].lower() in _SCHEMES and "://" in text


def parse_uri(text: str) -> NbdUri:
    """Read an NBD URI. Raises NbdUriError."""
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORT
        values = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise NbdUriError(f"{text!r} isn't an NBD URI", why=str(error)) from None
    if parts.scheme not in _SCHEMES:
        raise NbdUriError(f"{text!r} isn't an NBD URI", why=f"it must begin with one of {', '.join(_SCHEMES)}")
    tls, unix = _SCHEMES[parts.scheme]
    unknown = set(values) - _PARAMETERS
    if unknown or any(len(given) > 1 for given in values.values()):
        raise NbdUriError(
            f"{text!r} isn't an NBD URI",
            why=f"after the ? it may have {', '.join(sorted(_PARAMETERS))}, each once",
        )
    socket_path = values.get("socket", [""])[0]
    if unix != bool(socket_path) or unix == bool(parts.hostname):
        wanted = "?socket=PATH and no host" if unix else "a host and no socket"
        raise NbdUriError(f"{text!r} isn't an NBD URI", why=f"{parts.scheme} needs {wanted}")
    export = unquote(parts.path.removeprefix("/"))
    if len(export.encode()) > _LONGEST_NAME_BYTES or "\0" in export + socket_path:
        raise NbdUriError(f"{text[:200]!r} isn't an NBD URI", why="its export or socket can't be a name")
    folder = values.get("tls-certificates", [""])[0]
    return NbdUri(
        text=text,
        export=export,
        host=parts.hostname or "",
        port=port,
        socket_path=socket_path,
        tls=tls,
        tls_hostname=values.get("tls-hostname", [parts.hostname or "localhost"])[0],
        tls_certificates=Path(folder) if folder else None,
    )
