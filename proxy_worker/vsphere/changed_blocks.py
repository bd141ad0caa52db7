"""Changed block tracking: what changed on a disk since an earlier snapshot, or why nobody can tell.

A wrong answer loses data, so every doubt has a name and ends in reading the disk whole: an answer counts only when
its pieces follow each other without a gap to the very end of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from pyVmomi import vim, vmodl

from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.subjects import Extent
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

IN_USE: Final = "*"
"""The changeId that asks for every area that has ever been written."""


class ChangeTrackingError(SourceError):
    """Changed block tracking can't be switched on for a VM; its disks are read whole."""


class FullRead(StrEnum):
    """Why a disk has to be read whole."""

    FIRST = "no earlier restore point tells where tracking stood"
    OFF = "changed block tracking is off, or was switched on after the last snapshot"
    REPLACED = "another disk is in its place: its uuid differs from the restore point's"
    RESIZED = "the disk's size differs from the restore point's"
    RESET = "changed block tracking was reset since the restore point"
    REVERTED = "the VM went back to an earlier state since the restore point"
    STALE = "vSphere no longer knows the restore point's changeId"
    INCOMPLETE = "vSphere's answer doesn't cover the disk without a gap"
    UNTOLD = "vSphere doesn't tell which areas are in use"


@dataclass(frozen=True, slots=True)
class ChangeBase:
    """Where tracking stood in a restore point's snapshot. Valid for that very disk only."""

    change_id: str
    disk_uuid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The areas that changed, ascending and apart; or None and the reason to read the disk whole."""

    areas: tuple[Extent, ...] | None
    full_read: FullRead | None = None
    detail: str = ""


class _IncompleteError(Exception):
    """The pieces of an answer don't join up."""


def base_of(disk: VirtualDisk) -> ChangeBase | None:
    """What to keep with a restore point, of the disk as its snapshot has it."""
    if disk.change_id is None or disk.uuid is None:
        return None
    return ChangeBase(disk.change_id, disk.uuid, disk.size_bytes)


def doubt(base: ChangeBase | None, disk: VirtualDisk) -> FullRead | None:
    """Why changes of `disk`, a snapshot's, since `base` can't be asked for; None if they can."""
    if base is None:
        return FullRead.FIRST
    if disk.change_id is None:
        return FullRead.OFF
    if disk.uuid != base.disk_uuid:
        return FullRead.REPLACED
    if disk.size_bytes != base.size_bytes:
        return FullRead.RESIZED
    (then, then_at), (now, now_at) = _parts(base.change_id), _parts(disk.change_id)
    if then != now:
        return FullRead.RESET
    return FullRead.REVERTED if now_at < then_at else None


def changes_since(session: Session, vm: str, snapshot: str, disk: VirtualDisk, base: ChangeBase | None) -> Changes:
    """What changed between `base` and `snapshot` (managed object ids of the same vCenter as the session).

    Raises what `session` and `faults` name when vCenter can't be asked; any doubt about its answer is in `Changes`.
    """
    reason = doubt(base, disk)
    if base is None or reason is not None:
        return Changes(None, reason)
    return _query(session, vm, snapshot, disk, base.change_id, refused=FullRead.STALE)


def areas_in_use(session: Session, vm: str, snapshot: str, disk: VirtualDisk) -> Changes:
    """Every area that has ever been written, for a disk that is read whole; the rest reads as zeros.

    Where vSphere can't tell, e.g. on NFS, `Changes` says so. Raises as `changes_since`.
    """
    if disk.change_id is None:
        return Changes(None, FullRead.OFF)
    return _query(session, vm, snapshot, disk, IN_USE, refused=FullRead.UNTOLD)


def enable(session: Session, vm: Vm, waiting: Waiting | None = None) -> bool:
    """Switch tracking on; False if it is on. It counts from the next snapshot.

    Raises `ChangeTrackingError` where it can't work: with snapshots present vSphere's answers would be wrong.
    """
    what = f"changed block tracking of {vm.name}"
    if vm.tracks_changes:
        return False
    if not vm.can_track_changes:
        raise ChangeTrackingError(
            what, why="its virtual hardware doesn't support it", remedy="Upgrade it to 7 or newer."
        )
    if vm.snapshots:
        raise ChangeTrackingError(
            what, why=f"it has the snapshot {vm.snapshots[0].name!r}", remedy="Remove its snapshots first."
        )
    machine = vim.VirtualMachine(vm.ref, session.stub)
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
    finish(session, f"switching on {what}", lambda: machine.ReconfigVM_Task(spec), waiting)
    return True


def _query(
    session: Session, vm: str, snapshot: str, disk: VirtualDisk, change_id: str, *, refused: FullRead
) -> Changes:
    try:
        return Changes(_all_pieces(session, vm, snapshot, disk, change_id))
    except _IncompleteError as gap:
        return Changes(None, FullRead.INCOMPLETE, str(gap))
    except _RefusedError as error:
        return Changes(None, refused, str(error))


class _RefusedError(Exception):
    """vSphere has no answer for this changeId."""


def _all_pieces(session: Session, vm: str, snapshot: str, disk: VirtualDisk, change_id: str) -> tuple[Extent, ...]:
    machine = vim.VirtualMachine(vm, session.stub)
    frozen = vim.vm.Snapshot(snapshot, session.stub)
    what = f"changed areas of {disk.place} in {snapshot}"

    def piece(offset: int) -> Any:
        try:
            return machine.QueryChangedDiskAreas(frozen, disk.key, offset, change_id)
        except (vim.fault.FileFault, vmodl.fault.InvalidArgument) as fault:
            raise _RefusedError(type(fault).__name__.rpartition(".")[2]) from fault

    areas: list[Extent] = []
    offset = 0
    while offset < disk.size_bytes:
        answer = session.call(what, partial(piece, offset), repeatable=True)
        end = answer.startOffset + answer.length
        if answer.startOffset != offset or end <= offset or end > disk.size_bytes:
            raise _IncompleteError(
                f"asked from {offset}, answered {answer.startOffset} to {end} of {disk.size_bytes}"
            )
        _append(areas, answer.changedArea or (), offset, end)
        offset = end
    return tuple(areas)


def _append(areas: list[Extent], found: Any, start: int, end: int) -> None:
    """Add a piece's areas, joined where they touch; they must lie within it and ascend."""
    for area in found:
        after = areas[-1].offset + areas[-1].length if areas else 0
        if area.start < max(start, after) or area.length <= 0 or area.start + area.length > end:
            raise _IncompleteError(f"area {area.start}+{area.length} isn't in order within {start} to {end}")
        if areas and after == area.start:
            areas[-1] = Extent(offset=areas[-1].offset, length=areas[-1].length + area.length)
        else:
            areas.append(Extent(offset=area.start, length=area.length))


def _parts(change_id: str) -> tuple[str, int]:
    """A changeId is the tracking's own id and a count: `52 de … ef/12`."""
    tracking, _, count = change_id.rpartition("/")
    return tracking, int(count) if count.isdecimal() else 0
