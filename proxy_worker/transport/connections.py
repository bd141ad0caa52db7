"""What one proxy can reach, as its `proxy.toml` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import model_validator

from proxy_worker.contract.names import MODE_PREFERENCE, TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.selection import LEFT_OUT, Offer
from proxy_worker.contract.subjects import Frozen, Name
from proxy_worker.transport.storage_snapshot.provider import StorageSnapshotSettings

PLACEHOLDERS = frozenset({"{path}", "{vmdk}", "{socket}"})
_PLACEHOLDER = re.compile(r"\{[a-z_]*\}")
_NFS_URI = re.compile(r"nfs://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(/[^?#\s]*)?")
_NOT_PROBED = VsphereOffer()


class DatastoreConnection(Frozen):
    """How a proxy reaches one datastore. Templates may contain `{path}`, `{vmdk}` and `{socket}`, see `network`."""

    path: Path | None = None
    """The folder where the datastore is mounted: direct storage."""
    nfs_uri: str | None = None
    """The datastore's NFS export, `nfs://server/export`, read without mounting it: direct storage."""
    san: bool = False
    """Whether this machine sees the datastore's LUNs: direct storage through VMware's VDDK."""
    storage_snapshot: StorageSnapshotSettings | None = None
    """How the storage under `path` freezes disks, where this proxy may ask it to."""
    network_uri: str | None = None
    """A template of the NBD URI that serves one disk."""
    network_command: tuple[str, ...] | None = None
    """A template of the command that serves one disk as NBD on the Unix socket `{socket}`, in the foreground."""

    @model_validator(mode="after")
    def _check_templates(self) -> Self:
        if self.network_uri is not None and self.network_command is not None:
            raise ValueError("give network_uri or network_command, not both")
        if sum((self.path is not None, self.nfs_uri is not None, self.san)) > 1:
            raise ValueError("give one of path, nfs_uri and san")
        if self.storage_snapshot is not None and self.path is None:
            raise ValueError("storage_snapshot needs the datastore's path")
        if self.nfs_uri is not None and not _NFS_URI.fullmatch(self.nfs_uri):
            raise ValueError("nfs_uri must look like nfs://server/export, without port, user and query")
        if self.network_command is not None and not any("{socket}" in word for word in self.network_command):
            raise ValueError("network_command must serve on {socket}")
        for word in (self.network_uri or "", *(self.network_command or ())):
            unknown = set(_PLACEHOLDER.findall(word)) - PLACEHOLDERS
            if unknown:
                raise ValueError(f"{word!r} has {sorted(unknown)[0]}, known are {', '.join(sorted(PLACEHOLDERS))}")
        return self

    def below(self, folder: Path) -> Self:
        """The same with its relative paths taken from `folder`."""
        snapshots = self.storage_snapshot
        if snapshots is not None and snapshots.folder is not None:
            snapshots = snapshots.model_copy(update={"folder": folder / snapshots.folder})
        path = folder / self.path if self.path is not None else None
        return self.model_copy(update={"path": path, "storage_snapshot": snapshots})

    @property
    def modes(self) -> tuple[TransportMode, ...]:
        """The modes that this connection is good for, best first."""
        direct = self.path is not None or self.nfs_uri is not None or self.san
        network = self.network_uri is not None or self.network_command is not None
        has = {
            TransportMode.STORAGE_SNAPSHOT: self.storage_snapshot is not None,
            TransportMode.DIRECT_STORAGE: direct,
            TransportMode.NETWORK: network,
        }
        return tuple(mode for mode in MODE_PREFERENCE if has.get(mode, False))


class Connections(Frozen):
    """Every datastore a proxy is connected to, and the modes it may use at all."""

    datastores: Mapping[Name, DatastoreConnection] = {}
    modes: tuple[TransportMode, ...] = MODE_PREFERENCE
    failover_to_network: bool = True
    """Whether a disk that another mode can't read may be read over the network; a task may forbid it too."""

    def offered(self, vsphere: VsphereOffer = _NOT_PROBED) -> dict[str, tuple[TransportMode, ...]]:
        """Each datastore with the modes that this proxy offers for it, best first: what it registers.

        Datastores that lie on LUNs are read through VDDK, so that `vsphere` may speak against them.
        """
        return {
            name: tuple(mode for mode in modes if mode in self.modes)
            for name, modes in self._working(vsphere).items()
        }

    def _working(self, vsphere: VsphereOffer) -> dict[str, tuple[TransportMode, ...]]:
        without_vddk = TransportMode.DIRECT_STORAGE in vsphere.refusals
        return {
            name: tuple(
                mode
                for mode in connection.modes
                if not (mode is TransportMode.DIRECT_STORAGE and connection.san and without_vddk)
            )
            for name, connection in self.datastores.items()
        }

    def offered_without_datastore(self) -> tuple[TransportMode, ...]:
        """The modes for disks that belong to no datastore, e.g. those behind an NBD URI."""
        return tuple(mode for mode in MODE_PREFERENCE if mode == TransportMode.NETWORK and mode in self.modes)

    def left_out(self) -> tuple[TransportMode, ...]:
        """The modes that this proxy may not use."""
        return tuple(mode for mode in MODE_PREFERENCE if mode not in self.modes)

    def offer(self, vsphere: VsphereOffer) -> Offer:
        """What the choice of a mode is made from, on this proxy itself."""
        return Offer(
            self._working(vsphere),
            self.offered_without_datastore(),
            vsphere,
            dict.fromkeys(self.left_out(), LEFT_OUT),
        )
