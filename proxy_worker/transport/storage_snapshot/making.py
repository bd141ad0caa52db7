"""From a datastore's settings to its provider of storage snapshots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy_worker.transport.storage_snapshot.btrfs import BtrfsSnapshots
from proxy_worker.transport.storage_snapshot.provider import StorageSnapshots, StorageSnapshotSettings
from proxy_worker.transport.storage_snapshot.reflink import ReflinkSnapshots

_PROVIDERS: Final[dict[str, Callable[[str, Path, StorageSnapshotSettings], StorageSnapshots]]] = {
    "btrfs": BtrfsSnapshots,
    "reflink": ReflinkSnapshots,
}


def snapshots_of(datastore: str, path: Path, settings: StorageSnapshotSettings) -> StorageSnapshots:
    """The provider for the datastore at `path`; nothing is touched yet."""
    return _PROVIDERS[settings.provider](datastore, path, settings)
