"""A repository: opening one, and the four things done with it: write, commit, list, read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.specification import DiskIdentity, VmIdentity
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.points import Point
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.store import Store
from proxy_worker.repository.writer import DiskWriter

ZERO_ID = bytes(32)
"""The id that stands for a block, or a segment, of zeros."""


def new_run_id(now: float | None = None) -> str:
    """A fresh run name, e.g. `20261122T190102Z-1a2b3c4d`; sorts by time, unique by chance."""
    raise NotImplementedError


def open_store(location: str) -> Store:
    """The store at a location: so far a folder. Raises `RepositoryNotFoundError` when it isn't there."""
    raise NotImplementedError


class Repository:
    """An open repository. All methods may be called from any thread."""

    id: str
    block_size: int
    can_read: bool

    @classmethod
    def create(cls, store: Store, *, passphrase: bytes | None, block_size: int = 256 * 1024) -> Repository:
        """Make a repository in an empty store; without a passphrase it is not encrypted."""
        raise NotImplementedError

    @classmethod
    def open(cls, store: Store, credential: Credential, *, cache_dir: Path | None = None) -> Repository:
        """Open one. `cache_dir` keeps the index between processes; without it the index is rebuilt each time."""
        raise NotImplementedError

    def points(self, vm_id: str | None = None) -> list[Point]:
        """Committed points that retention hasn't ended, by VM name, oldest first."""
        raise NotImplementedError

    def newest_point(self, vm_id: str) -> Point | None:
        """The newest of a VM."""
        raise NotImplementedError

    def point(self, vm_id: str, run: str) -> Point:
        """One point; raises `PointNotFoundError`."""
        raise NotImplementedError

    def begin_disk(
        self,
        *,
        vm_id: str,
        run: str,
        disk_key: str,
        fence: int,
        level: CompressionLevel = CompressionLevel.OPTIMAL,
    ) -> DiskWriter:
        """Register a writer, read the condemned lists, then the index. Raises `RunEndedError` if the run has ended."""
        raise NotImplementedError

    def commit(
        self,
        *,
        vm: VmIdentity,
        run: str,
        job: str,
        disks: Sequence[tuple[DiskIdentity, int, str]],
        started_at: float,
    ) -> Point:
        """Make (disk, fence, sealed result) triples a restore point, all or nothing.

        The same commit twice gives the same point. Raises `RunEndedError`, `MissingBlockError`,
        `RepositoryDamageError`.
        """
        raise NotImplementedError

    def abandon(self, *, vm_id: str, run: str, reason: str) -> bool:
        """Put a tombstone in the place of the point; True if a point was there first."""
        raise NotImplementedError

    def reader(self, point: Point) -> PointReader:
        """Read a point's disks. Raises `CannotReadError` with a write key."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the index. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
