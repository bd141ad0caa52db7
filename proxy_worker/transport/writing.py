"""A disk that is open for writing, whatever lies behind it, and the errors every kind of sink shares.

The write mode is always chosen by the proxy: the file itself where the datastore is mounted here, else the network.
"""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Protocol, Self, runtime_checkable

from proxy_worker.contract.errors import TargetError
from proxy_worker.contract.names import TransportMode


class DiskUnwritableError(TargetError):
    """A part of a disk can't be written."""


class NoRoomError(DiskUnwritableError):
    """There is no space left where a disk lies."""


class SinkLostError(TargetError):
    """The server that writes a disk has gone, or doesn't answer any more."""

    retryable: ClassVar[bool] = True


class OutsideDiskError(TargetError):
    """Something was to be written past the end of a disk."""


@runtime_checkable
class DiskSink(Protocol):
    """A disk that is open for writing; also a context manager that closes it.

    Thread-safe: several threads may call `write_from` and `zero` at once. What was written is durable once
    `flush` has returned.
    """

    @property
    def size_bytes(self) -> int:
        """The disk's size as a guest sees it."""

    @property
    def mode(self) -> TransportMode:
        """The mode that it is written by."""

    @property
    def mode_reason(self) -> str:
        """Why this mode, and why not a better one, in one line."""

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of `view` from `offset` on, or raise TargetError."""

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros, or raise TargetError."""

    def flush(self) -> None:
        """Make durable what was written, or raise TargetError."""

    def close(self) -> None:
        """Release everything it holds. May be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def require_within(name: str, size_bytes: int, offset: int, length: int) -> None:
    """Raise OutsideDiskError unless the range lies within a disk of that size."""
    if offset < 0 or length < 0 or offset + length > size_bytes:
        raise OutsideDiskError(
            f"{name} can't be written from {offset} to {offset + length}", why=f"it ends at {size_bytes}"
        )
