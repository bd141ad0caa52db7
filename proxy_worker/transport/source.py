"""An open disk, whatever lies behind it, and the errors every kind of source shares."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent


class DiskUnreadableError(SourceError):
    """A part of a disk can't be read; `offset` is where, in bytes from the disk's start."""

    def __init__(self, what: str, *, offset: int, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.offset = offset


class DiskShrunkError(DiskUnreadableError):
    """A disk became shorter while it was read."""


class ConnectionLostError(DiskUnreadableError):
    """The server that a disk is read from has gone, or doesn't answer any more."""


class WrongDiskServedError(SourceError):
    """A server offers something else than the disk."""

    retryable = False


@runtime_checkable
class DiskSource(Protocol):
    """A disk that is open for reading; also a context manager that closes it.

    Thread-safe: several threads may call `read_into` and `allocated` at once. `close` must not be called
    before those calls have returned, except to make calls that hang fail.
    """

    @property
    def size_bytes(self) -> int:
        """The disk's size as a guest sees it."""

    @property
    def mode(self) -> TransportMode:
        """The mode that it is read by now; failover changes it."""

    @property
    def mode_reason(self) -> str:
        """Why this mode, and why not a better one, in one line; failover adds to it."""

    @property
    def parallel_reads(self) -> int:
        """How many threads that read at once make sense."""

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges within `offset`, `length` (bytes) that may hold data, ascending; the rest reads as zeros.

        Raises SourceError.
        """

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`, a writable view of bytes, with the disk's bytes from `offset` on.

        Fills it whole or raises SourceError. Page-aligned buffers (mmap) of 1 MiB and more are the fastest.
        """

    def close(self) -> None:
        """Release everything it holds. May be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def require_range(name: str, size_bytes: int, offset: int, length: int) -> None:
    """Raise DiskUnreadableError unless the range lies within a disk of that size."""
    if offset < 0 or length < 0 or offset + length > size_bytes:
        raise DiskUnreadableError(
            f"{name} can't be read from {offset} to {offset + length}",
            offset=offset,
            why=f"it ends at {size_bytes}",
        )
