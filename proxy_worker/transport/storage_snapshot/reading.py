"""Storage snapshot mode: a disk is read in place, in the snapshot that the storage has made of its datastore."""

from __future__ import annotations

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.in_place import open_in_place
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.storage_snapshot.making import connected_snapshots
from proxy_worker.transport.storage_snapshot.provider import StorageSnapshotGoneError
from proxy_worker.transport.vsphere_access import VsphereAccess


def open_storage_snapshot(
    address: DiskAddress,
    connections: Connections,
    vsphere: VsphereAccess,  # noqa: ARG001 - as for every mode
    *,
    reason: str,
) -> DiskSource:
    """A disk that a storage snapshot has.

    Raises StorageSnapshotGoneError, also when the disk isn't in it, StorageUnsuitableError, or a SourceError.
    """
    if address.storage_snapshot is None:
        raise StorageSnapshotGoneError(f"{address.path} can't be read", why="no storage snapshot of it was made")
    name = address.datastore or ""
    snapshot = connected_snapshots(name, connections).find(address.storage_snapshot)
    return open_in_place(snapshot, address.path or "", reason, mode=TransportMode.STORAGE_SNAPSHOT)
