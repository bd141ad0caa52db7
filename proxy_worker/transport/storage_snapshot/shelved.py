"""What providers have in common that keep a datastore's snapshots on a shelf."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.storage_snapshot.provider import FOLDER, StorageSnapshotSettings
from proxy_worker.transport.storage_snapshot.shelf import Shelf


class Shelved:
    """All of `StorageSnapshots` but how one is made, and whether that can be."""

    def __init__(
        self, datastore: str, path: Path, settings: StorageSnapshotSettings, *, delete: Callable[[Path], None]
    ) -> None:
        """`delete` as for `Shelf`."""
        self._name = datastore
        self._path = path
        self._shelf = Shelf(settings.folder or path / FOLDER, what=f"datastore {datastore}", delete=delete)

    def find(self, mark: StorageSnapshotMark) -> Datastore:
        """The datastore as it is in a snapshot. Raises StorageSnapshotGoneError."""
        return self.frozen(self._shelf.require(mark))

    def remove(self, mark: StorageSnapshotMark) -> bool:
        """Remove a snapshot; False if there is none. Raises StorageSnapshotError."""
        return self._shelf.remove(mark)

    def list(self, installation: str) -> tuple[str, ...]:
        """The journal entries of an installation that there are snapshots for. Raises StorageSnapshotError."""
        return self._shelf.list(installation)

    def frozen(self, snapshot: Path) -> Datastore:
        """The datastore in a snapshot's folder."""
        label = f"the storage snapshot of datastore {self._name}"
        return Datastore(self._name, snapshot / self.inner(), label=label)

    def inner(self) -> Path:
        """Where in a snapshot the datastore is."""
        return Path()
