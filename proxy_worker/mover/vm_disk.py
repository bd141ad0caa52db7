"""What a disk is restored to when it is a VM's: an open sink, and the areas that are to be written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.errors import ConflictError, TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.target import TargetFullError
from proxy_worker.transport.writing import DiskSink


class DiskSizeError(ConflictError):
    """The disk that is to be written isn't as large as the one in the restore point."""


class DiskTarget:
    """A `RestoreTarget` on a VM's disk."""

    def __init__(self, sink: DiskSink, name: str, size_bytes: int, *, blank: bool) -> None:
        """`blank`: it reads as zeros wherever this restore hasn't written. Raises DiskSizeError."""
        if sink.size_bytes != size_bytes:
            raise DiskSizeError(
                f"{name} can't be restored to",
                why=f"it has {sink.size_bytes} bytes, the disk in the restore point {size_bytes}",
                remedy="Restore to a new disk.",
            )
        self.name = name
        self.mode: TransportMode = sink.mode
        self.mode_reason = sink.mode_reason
        self.writes_zeros = not blank
        self._sink = sink

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`. Raises TargetError."""
        self._sink.write_from(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range of a disk that isn't blank. Raises TargetError."""
        if self.writes_zeros:
            self._sink.zero(offset, length)

    def finish(self) -> None:
        """Make it durable. Raises TargetError."""
        self._sink.flush()

    def full(self, missing_bytes: int) -> TargetError:
        """The error for a datastore that has run out of room."""
        return TargetFullError(
            f"{self.name} can't be restored to",
            why=f"no space is left on its datastore, {missing_bytes} bytes short of what the disk still needs",
            remedy="Free that much, or restore to another datastore.",
        )


class AreaMap:
    """Which blocks changed areas touch."""

    def __init__(self, areas: Sequence[Extent] | None) -> None:
        """`areas` ascend and don't overlap; None means everything."""
        self.everything = areas is None
        self._starts = [area.offset for area in areas or ()]
        self._ends = [area.offset + area.length for area in areas or ()]

    def touches(self, offset: int, length: int) -> bool:
        """Whether a part of this range is in an area."""
        at = bisect_right(self._starts, offset + length - 1) - 1
        return at >= 0 and self._ends[at] > offset


def target_name(request: DiskRestore) -> str:
    """What messages call a request's target."""
    target = request.target
    if target is None:
        return request.target_path or ""
    if target.vsphere is not None:
        return f"{target.vsphere.path} of {target.vsphere.vm}"
    return target.nbd_uri or f"{target.path} in datastore {target.datastore}"
