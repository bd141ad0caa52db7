"""What tasks about storage snapshots do on this proxy."""

from __future__ import annotations

import time

from proxy_worker.contract.outcome import (
    StorageSnapshotCreateResult,
    StorageSnapshotListResult,
    StorageSnapshotRemoveResult,
)
from proxy_worker.contract.specification import StorageSnapshotCreate, StorageSnapshotList, StorageSnapshotRemove
from proxy_worker.node.bench import Bench
from proxy_worker.transport.storage_snapshot.making import connected_snapshots


def create_storage_snapshot(body: StorageSnapshotCreate, bench: Bench, *_: object) -> StorageSnapshotCreateResult:
    """Freeze a VM's disks on their storage."""
    began = time.monotonic()
    connected_snapshots(body.datastore, bench.configuration.connections).create(body.mark, body.paths)
    return StorageSnapshotCreateResult(duration_seconds=time.monotonic() - began)


def remove_storage_snapshot(body: StorageSnapshotRemove, bench: Bench, *_: object) -> StorageSnapshotRemoveResult:
    """Remove a storage snapshot, if it is there."""
    snapshots = connected_snapshots(body.datastore, bench.configuration.connections)
    return StorageSnapshotRemoveResult(existed=snapshots.remove(body.mark))


def list_storage_snapshots(body: StorageSnapshotList, bench: Bench, *_: object) -> StorageSnapshotListResult:
    """List an installation's storage snapshots."""
    snapshots = connected_snapshots(body.datastore, bench.configuration.connections)
    return StorageSnapshotListResult(journals=snapshots.list(body.installation))
