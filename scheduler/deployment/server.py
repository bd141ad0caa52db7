"""What is declared of the machine that a proxy is put on."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy_worker.contract.subjects import Name
from proxy_worker.program.instant_restore import InstantRestoreSettings
from scheduler.fleet.values import one_line

_PREFIX: Final = "SHA256:"
_DIGEST_BYTES: Final = 32
SSH_PORT: Final = 22
ROOT: Final = "root"
_LEAST_DEPTH: Final = 2
"""Folders right below the root are the system's."""
_NOT_OF_PROGRAMS: Final = frozenset("\"'\\$")


def _fingerprint(text: str) -> str:
    encoded = text.removeprefix(_PREFIX)
    try:
        digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        digest = b""
    if not text.startswith(_PREFIX) or len(digest) != _DIGEST_BYTES:
        raise ValueError(f"expected a fingerprint as `ssh-keygen -l` prints it, 'SHA256:…', got {text!r}")
    return text.rstrip("=")


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path on that machine, got {text!r}")
    return one_line(text).rstrip("/") or "/"


def _own_folder(text: str) -> str:
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if len(parts) < _LEAST_DEPTH or ".." in parts or parts[:-1] == ["usr"]:
        raise ValueError(f"expected a folder for the proxy alone, such as /srv/proxyfleet-proxy, got {text!r}")
    if _NOT_OF_PROGRAMS.intersection(text):
        raise ValueError(
            f"expected a folder without quotes, \\ and $, which systemd starts nothing from, got {text!r}"
        )
    return "/" + "/".join(parts)


def _folder_in_one_line(settings: InstantRestoreSettings) -> InstantRestoreSettings:
    one_line(str(settings.folder))
    return settings


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
"""Of an SSH host key: `SHA256:` and 43 characters of base64."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ConnectedDatastore(_Declared):
    """How a deployed proxy reaches a datastore: as in its `proxy.toml`."""

    path: AbsolutePath | None = None
    """The folder where it is mounted there: direct storage."""
    nfs_uri: str | None = None
    """Its NFS export, `nfs://server/export`, read without mounting it: direct storage."""
    san: bool = False
    """Whether that machine sees its LUNs: direct storage through VMware's VDDK."""
    network_uri: str | None = None
    """An NBD URI with `{path}`: network."""
    network_command: tuple[str, ...] | None = None
    """A command that serves a disk as NBD, with `{socket}` and `{path}`: network."""

    @model_validator(mode="after")
    def _reached_somehow(self) -> Self:
        if not any((self.path, self.nfs_uri, self.san, self.network_uri, self.network_command)):
            raise ValueError("expected 'path', 'nfs_uri', 'san', 'network_uri' or 'network_command', got none")
        return self


class ProxyServer(_Declared):
    """The machine that `scheduler proxy deploy` puts a proxy on, and what the proxy there is given."""

    host: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s/@]+$")]
    """Its name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)] = SSH_PORT
    """Its SSH port."""
    user: Annotated[str, Field(min_length=1, max_length=32)] = ROOT
    """Who logs in: root, or somebody whom `sudo` asks no password."""
    credential: Name | None = None
    """The secret that logs in: `<credential>.ssh-key` or `<credential>.ssh-password` in the scheduler's secrets
    folder (with a passphrase in `<credential>.ssh-passphrase`). Without this key, the SSH agent and your own."""
    host_key: Fingerprint | None = None
    """The fingerprint that its SSH host key is pinned by. Without this key it is shown and asked about."""
    install_dir: Annotated[AbsolutePath, AfterValidator(_own_folder)] | None = None
    """The one folder that everything goes into; needed where the login may not become root, and the proxy runs as
    that user. Without this key: `proxyfleet-proxy` in `/opt`, `/etc` and `/var/lib`."""
    redis_url: str | None = None
    """Where Redis is as seen from there; without this key, as the scheduler sees it."""
    credentials: tuple[Name, ...] | None = None
    """Secrets of the scheduler's that it gets: `<name>.key`, `<name>.passphrase` or `<name>.password`. Without this
    key: keys of the repositories that it reaches and passwords of its site's vCenters, and no passphrases."""
    datastores: Mapping[Name, ConnectedDatastore] = {}
    """The datastores that it is connected to, by name."""
    writes: tuple[AbsolutePath, ...] = ()
    """Folders there that it writes beside its repositories', such as places that it restores to."""
    failover_to_network: bool = True
    """Whether disks that another mode can't read are read over the network there; a job can forbid it too."""
    encryption_to_host: bool = False
    """Whether network mode must be encrypted up to the host. Otherwise it is where the host allows it."""
    instant_restore: Annotated[InstantRestoreSettings, AfterValidator(_folder_in_one_line)] | None = None
    """Has it serve restore points to hosts, for VMs to run from, as in its `proxy.toml`; else it serves none."""

    @property
    def address(self) -> str:
        """Host and port for people; the usual port is left out."""
        return self.host if self.port == SSH_PORT else f"{self.host}:{self.port}"
