"""gateway.toml: what a gateway offers, where, and which certificate it shows.

Every key can be overridden by an environment variable that begins with `PROXY_GATEWAY_`.
Relative paths are relative to the folder of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from proxy_worker.contract.gateway_address import DEFAULT_PORT
from proxy_worker.contract.subjects import Name
from proxy_worker.link.identity import Identity
from proxy_worker.program.logs import LogFormat
from proxy_worker.program.settings import Settings, read_settings

ENVIRONMENT_PREFIX: Final = "PROXY_GATEWAY_"


class Hardening(Settings):
    """A repository whose objects nobody can change or delete for a while: see `proxy-worker warden`."""

    days: Annotated[float, Field(gt=0, le=36_500)]
    """For how long, from when an object is put; by a clock that counts only while the warden runs."""
    run_dir: Path = Path("/run/proxyfleet-warden")
    """Where the warden's socket is, `<repository>.socket`."""
    state_dir: Path = Path("/var/lib/proxyfleet-warden")
    """Where its clock and terms are kept, in a folder for each repository: for root and the warden alone."""


class OfferedRepository(Settings):
    """A folder that is offered."""

    path: Path
    """The repository's folder on this machine."""
    proxies: tuple[str, ...] = ("*",)
    """The proxies that may use it, by the names in their certificates or patterns; `*`: all of the fleet."""
    hardened: Hardening | None = None
    """Makes it append-only for everybody; without this table it isn't."""


class GatewaySettings(Settings):
    """All of gateway.toml, with every path absolute."""

    host: str = "0.0.0.0"  # noqa: S104 - it is there to be reached
    """The IP address that it listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    """The port that it listens on; 0: a free one."""
    certificate: Path
    """What it shows, of role gateway."""
    key: Path
    """The key of `certificate`."""
    ca_file: Path
    """The fleet's authority, and what it has revoked."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 256
    """More are closed at once; a proxy opens five for each process that moves a disk."""
    max_calls: Annotated[int, Field(ge=1, le=1024)] = 64
    """How much it does at a time: each costs a thread and a few MiB."""
    repositories: Annotated[Mapping[Name, OfferedRepository], Field(min_length=1)]
    log_format: LogFormat = LogFormat.TEXT
    """`text`, or `json`: one object a line."""

    @property
    def identity(self) -> Identity:
        """Its certificate."""
        return Identity(self.certificate, self.key, self.ca_file)


def load_settings(path: Path, environment: Mapping[str, str]) -> GatewaySettings:
    """Read the file and what overrides it; raises `SettingsError` with file, key and expectation."""
    read = read_settings(GatewaySettings, path, environment, prefix=ENVIRONMENT_PREFIX)
    folder = path.parent.resolve()
    repositories = {
        name: one.model_copy(update={"path": folder / one.path, "hardened": _below(folder, one.hardened)})
        for name, one in read.repositories.items()
    }
    files = {key: folder / getattr(read, key) for key in ("certificate", "key", "ca_file")}
    return read.model_copy(update={"repositories": repositories, **files})


def _below(folder: Path, hardening: Hardening | None) -> Hardening | None:
    if hardening is None:
        return None
    paths = {key: folder / getattr(hardening, key) for key in ("run_dir", "state_dir")}
    return hardening.model_copy(update=paths)
