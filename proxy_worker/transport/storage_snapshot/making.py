"""From a datastore's settings to its provider of storage snapshots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.storage_snapshot.btrfs import BtrfsSnapshots
from proxy_worker.transport.storage_snapshot.provider import (
    StorageSnapshotError,
    StorageSnapshots,
    StorageSnapshotSettings,
)
from proxy_worker.transport.storage_snapshot.reflink import ReflinkSnapshots


class NoStorageSnapshotsError(ConfigurationError):
    """This proxy isn't told how a datastore's storage makes snapshots."""


_PROVIDERS: Final[dict[str, Callable[[str, Path, StorageSnapshotSettings], StorageSnapshots]]] = {
    "btrfs": BtrfsSnapshots,
    "reflink": ReflinkSnapshots,
}


def snapshots_of(datastore: str, path: Path, settings: StorageSnapshotSettings) -> StorageSnapshots:
    """The provider for the datastore at `path`; nothing is touched yet."""
    return _PROVIDERS[settings.provider](datastore, path, settings)


def connected_snapshots(datastore: str, connections: Connections) -> StorageSnapshots:
    """The provider of a datastore that this proxy is connected to. Raises NoStorageSnapshotsError."""
    connection = connections.datastores.get(datastore)
    if connection is None or connection.path is None or connection.storage_snapshot is None:
        raise NoStorageSnapshotsError(
            f"storage snapshots of datastore {datastore}",
            why="this proxy isn't told how they are made",
            remedy=f"Set `path` and [datastores.{datastore}.storage_snapshot] in its proxy.toml.",
        )
    return snapshots_of(datastore, connection.path, connection.storage_snapshot)


def unusable(connections: Connections) -> dict[str, str]:
    """Datastores that are to have storage snapshots and can't, each with why: tried out on the storage itself."""
    found = {}
    for name, modes in connections.offered().items():
        if TransportMode.STORAGE_SNAPSHOT in modes:
            try:
                connected_snapshots(name, connections).probe()
            except StorageSnapshotError as error:
                found[name] = str(error)
    return found
