"""What a session needs of wherever a replica lies: a folder of a datastore, or a VM of a vCenter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import msgspec

from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.contract.subjects import DiskIdentity, Extent
from proxy_worker.replication.errors import ReplicaFailedOverError, ReplicaPermanentError, ReplicaRevertingError
from proxy_worker.replication.table import Looks
from proxy_worker.transport.writing import DiskSink


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a replica is, as noted beside it."""

    condition: ReplicaCondition = ReplicaCondition.STANDBY
    run: str | None = None
    """The restore point that its disks were reverted to, until they are written again."""
    reverting: bool = False
    """Whether that has begun and not ended."""
    original: str | None = None
    """The id of the VM that it is a replica of, or, during a failback, that it is itself."""

    def require_whole(self, name: str) -> None:
        """Raise `ReplicaRevertingError` while the replica of that name is half reverted to a restore point."""
        if self.reverting:
            raise ReplicaRevertingError(
                name,
                why=f"it is half reverted to restore point {self.run}",
                remedy="Let that be finished: ask for what failed, a failover or its undoing, again.",
            )

    def require_standby(self, name: str, *, ways_out: str, elsewhere: str) -> None:
        """Raise `ReplicaFailedOverError` or `ReplicaPermanentError`, unless runs may write it by what it is.

        `ways_out` says how a failover ends, `elsewhere` where else to replicate to.
        """
        if self.condition is ReplicaCondition.FAILED_OVER:
            raise ReplicaFailedOverError(
                name, why=f"it has failed over to restore point {self.run}", remedy=ways_out
            )
        if self.condition is ReplicaCondition.PERMANENT:
            raise ReplicaPermanentError(name, why="it has become a VM of its own", remedy=elsewhere)


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica's disk that is there, before a session opens it."""

    looks: Looks | None
    """None: nothing that was noted of it can be true."""
    size_bytes: int
    allocated_bytes: int
    """What it takes on its datastore already, at least."""
    blank: bool = False
    """Whether no session has written it."""


class Readable(Protocol):
    """What a disk holds now."""

    def allocated(self, offset: int, length: int) -> Iterable[Extent]:
        """Ranges that may hold something other than zeros."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`."""


class OpenHomeDisk(Protocol):
    """A replica's disk, open to read and to write."""

    @property
    def size_bytes(self) -> int:
        """As a guest sees it."""

    @property
    def sink(self) -> DiskSink:
        """To write by."""

    @property
    def source(self) -> Readable:
        """To read by."""

    def looks_after(self, kept: str | None) -> Looks | None:
        """What it will look like to the next session, if it isn't touched; None where that can't be told.

        `kept`: the run that it is sealed as, and that its next restore point is made of; None: of none.
        """

    def close(self) -> None:
        """Let go of it. May be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class HomeDisk(Protocol):
    """A disk of a replica, by its key."""

    identity: DiskIdentity
    name: str

    def look(self) -> Seen | None:
        """What it looks like, None where there is none."""

    def make(self, size_bytes: int) -> None:
        """Make it."""

    def grow(self, size_bytes: int) -> None:
        """Make it larger."""

    def open(self) -> OpenHomeDisk:
        """Open it for one session."""


class Home(Protocol):
    """A replica as a session sees it."""

    def require_standby(self) -> Marker:
        """Raise unless runs may write it."""

    def note(self, marker: Marker) -> None:
        """Note something else, durably."""

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of the original's configuration."""

    def require_room(self, what: str, needed_bytes: int) -> None:
        """Raise `ReplicaTooLargeError` unless its datastore has so much left."""
