"""What every provider of storage snapshots offers, and how it is configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from proxy_worker.contract.errors import NotFoundError, SourceError
from proxy_worker.contract.subjects import Frozen, StorageSnapshotMark
from proxy_worker.transport.datastore import Datastore

FOLDER: Final = ".proxyfleet-snapshots"
"""Where snapshots are kept, unless it is configured; inventories pass over folders that begin with a dot."""
_PREFIX: Final = "proxyfleet"
_SEPARATOR: Final = "@"
"""Occurs in no mark."""


class StorageSnapshotError(SourceError):
    """A storage snapshot can't be made, listed or removed."""


class StorageUnsuitableError(StorageSnapshotError):
    """A datastore doesn't lie on the storage that its provider of snapshots is for."""

    retryable = False


class StorageFullError(StorageSnapshotError):
    """The storage has no room for a snapshot."""

    retryable = False


class StorageSnapshotGoneError(NotFoundError):
    """A storage snapshot, or a disk in it, does not exist any more."""


class StorageSnapshotSettings(Frozen):
    """How snapshots of a datastore are made."""

    provider: Literal["btrfs", "reflink"]
    """`btrfs`: of the subvolume; `reflink`: of the VM's files, on XFS and other file systems that share blocks."""
    folder: Path | None = None
    """Where they are kept, on the datastore's file system; `.proxyfleet-snapshots` in the datastore otherwise."""


class StorageSnapshots(Protocol):
    """A provider for one datastore. Every call may be repeated: what was done before is found done.

    Two processes may make the same snapshot at once; both then have the one that was ready first.
    """

    def probe(self) -> None:
        """Raise StorageUnsuitableError or another StorageSnapshotError unless snapshots can be made here."""

    def create(self, mark: StorageSnapshotMark, paths: Sequence[str]) -> None:
        """Freeze the disks at `paths` of the datastore, with all that they consist of.

        Raises StorageSnapshotError, DiskNotFoundError, or what opening a disk raises; nothing is left then.
        """

    def find(self, mark: StorageSnapshotMark) -> Datastore:
        """The datastore as it is frozen. Raises StorageSnapshotGoneError."""

    def remove(self, mark: StorageSnapshotMark) -> bool:
        """Remove a snapshot, also a half made one; False if there is none. Raises StorageSnapshotError."""

    def list(self, installation: str) -> tuple[str, ...]:
        """The journal entries of an installation that there are snapshots for, half made ones too.

        Raises StorageSnapshotError.
        """


def folder_name(mark: StorageSnapshotMark) -> str:
    """What a snapshot's folder is called."""
    return _SEPARATOR.join((_PREFIX, mark.installation, mark.journal))


def marked(name: str, installation: str) -> str | None:
    """The journal entry in a folder's name, whole or half made, if it is this installation's; None otherwise."""
    parts = name.split(_SEPARATOR)
    return parts[2] if parts[:2] == [_PREFIX, installation] and len(parts) in {3, 4} else None


def partial_name(mark: StorageSnapshotMark, token: str) -> str:
    """What a snapshot's folder is called while it is made; `token` is of this attempt alone."""
    return _SEPARATOR.join((folder_name(mark), token))


def is_partial(name: str, mark: StorageSnapshotMark) -> bool:
    """Whether a folder is a half made snapshot with this mark."""
    return name.startswith(folder_name(mark) + _SEPARATOR)
