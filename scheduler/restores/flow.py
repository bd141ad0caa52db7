"""What follows what: a restore's states, and the steps and tasks that bring it from one to the next.

`REQUESTED -> PLACING -> CREATING -> WRITING -> FINISHING -> SUCCEEDED`; what fails, or is cancelled before it is
finishing, goes by way of UNDOING to FAILED or CANCELLED. Each step and task is journalled before it is done, and
done again comes to the same, so that a scheduler killed anywhere goes on from the state that it finds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import CreatedDisk, TaskFailure
from proxy_worker.contract.subjects import Frozen, RepositoryReference, VcenterReference
from scheduler.dispatch.fleet import Placement
from scheduler.planning.places import TrackingMark
from scheduler.restores import tasks
from scheduler.restores.ending import FINISH, SWEEP, UNDO, EndRequest
from scheduler.restores.making_ready import ATTACH, READY, AttachRequest, ReadyDisk, ReadyRequest
from scheduler.restores.original import original_of
from scheduler.restores.placing import PLACE, PlaceRequest
from scheduler.runs.journal import Journal
from scheduler.runs.steps import account_of, open_step
from scheduler.runs.tasks import reference
from scheduler.state.errors import NoSuchRepositoryError, NoSuchVcenterError
from scheduler.state.models import (
    ChangeBaseOfPoint,
    Datastore,
    DatastoreKind,
    DiskTaskState,
    LedgerTask,
    Repository,
    RestoredDisk,
    ServiceMark,
    StepState,
    Vcenter,
    VcenterStep,
    VmRestore,
    VmRestoreKind,
    VmRestoreState,
)
from scheduler.state.restoring import OriginalPlace

logger = logging.getLogger(__name__)

SWEEP_S: Final = 600.0
"""How long after a VM's making was given up it is looked for once more."""
STEP_PRIORITY: Final = 20
"""Before snapshots, after what frees a vCenter."""
_MARK_KEY: Final = 1


def begin(journal: Journal, restore: VmRestore) -> None:
    """REQUESTED -> PLACING."""
    if restore.cancel_requested:
        end(journal, restore, VmRestoreState.CANCELLED)
        return
    restore.state, restore.started_at = VmRestoreState.PLACING, journal.now
    original = original_of(journal.session, restore.vm_id, restore.point)
    request = PlaceRequest(
        restore=restore.id,
        kind=restore.kind,
        target_name=restore.target_name,
        target_ref=restore.vm_ref,
        instance_uuid=restore.instance_uuid,
        wishes=restore.wishes,
        sizes={disk.disk_key: disk.size_bytes for disk in disks_of(journal, restore)},
        original=original.place
        if original is not None and original.vcenter == restore.vcenter
        else OriginalPlace(),
    )
    open_restore_step(journal, restore, PLACE.name, request, f"looking for a place for {restore.target_name}")


def unwritable(journal: Journal, restore: VmRestore, datastores: Mapping[str, str]) -> TaskFailure | None:
    """Why no proxy that runs could write the disks; `datastores` by disk key, as vCenter calls them."""
    vcenter = journal.session.get(Vcenter, restore.vcenter)
    if vcenter is None:
        return None  # which has a name of its own
    declared = _declared_datastores(journal, restore.vcenter)
    for name in sorted(set(datastores.values())):
        placement = Placement(
            TaskKind.DISK_RESTORE,
            repository=restore.repository,
            needs_read_key=True,
            datastore=declared.get(name),
            restores_to=vcenter.credential,
        )
        obstacle = journal.obstacle(placement)
        if obstacle is not None:
            what = f"restore of {restore.vm_name} to datastore {name} of vCenter {restore.vcenter}"
            return TaskFailure(code="no-proxy", what=what, why=obstacle, exit_code=NotFoundError.exit_code)
    return None


def create(journal: Journal, restore: VmRestore) -> None:
    """PLACING -> CREATING: from here on a failure has to be undone."""
    session = journal.session
    if restore.cancel_requested:
        end(journal, restore, VmRestoreState.CANCELLED)
        return
    try:
        repository = _repository(journal, restore)
        vcenter = _vcenter(journal, restore)
    except (NoSuchRepositoryError, NoSuchVcenterError) as error:
        end(journal, restore, VmRestoreState.FAILED, TaskFailure.of(error))
        return
    restore.state, restore.touched = VmRestoreState.CREATING, True
    declared = _declared_datastores(journal, restore.vcenter)
    if restore.kind is VmRestoreKind.NEW and restore.place is not None:
        task = tasks.create_task(
            restore,
            restore.place,
            repository,
            vcenter,
            installation=session.get_one(ServiceMark, _MARK_KEY).installation or "",
            declared=declared,
            disk_files=_served_files(restore),
            now=journal.now,
        )
        journal.open(task)
        return
    ready = ReadyRequest(
        restore=restore.id,
        vm_ref=restore.vm_ref or "",
        instance_uuid=restore.instance_uuid,
        name=restore.target_name,
        may_be_on=restore.wishes.power_off,
        sizes={disk.disk_key: disk.size_bytes for disk in disks_of(journal, restore)},
        bases=_bases(journal, restore) if restore.kind is VmRestoreKind.OVERWRITE else {},
        declared=declared,
    )
    if restore.kind is VmRestoreKind.OVERWRITE:
        open_restore_step(
            journal, restore, READY.name, ready, f"making {restore.target_name} ready to be written over"
        )
        return
    wishes = restore.wishes
    request = AttachRequest(**ready.model_dump(), disk_format=wishes.disk_format, datastore=wishes.datastore)
    open_restore_step(journal, restore, ATTACH.name, request, f"adding disks to {restore.target_name}")


def write(journal: Journal, restore: VmRestore, made: tuple[CreatedDisk, ...]) -> None:
    """CREATING -> WRITING: a task for every disk, now that it is known what to write."""
    try:
        repository = _repository(journal, restore)
    except NoSuchRepositoryError as error:
        undo(journal, restore, TaskFailure.of(error))
        return
    by_key = {disk.key: disk for disk in made}
    rows = disks_of(journal, restore)
    missing = [disk.disk_key for disk in rows if disk.disk_key not in by_key]
    if missing:
        why = f"disk {missing[0]} isn't there"
        undo(journal, restore, TaskFailure(code="vsphere", what=f"VM {restore.target_name}", why=why))
        return
    restore.state = VmRestoreState.WRITING
    restore.written = restore.kind is VmRestoreKind.OVERWRITE
    for disk in rows:
        found = by_key[disk.disk_key]
        disk.target = found.target
        disk.blank = restore.kind is not VmRestoreKind.OVERWRITE
        if isinstance(found, ReadyDisk):
            disk.changed_areas, disk.full_write_reason = found.changed_areas, found.full_write_reason
        queue(journal, restore, disk, repository)


def queue(journal: Journal, restore: VmRestore, disk: RestoredDisk, repository: RepositoryReference) -> None:
    """Have a disk written, for the first time or again."""
    disk.state, disk.retry_at, disk.tries = DiskTaskState.QUEUED, None, disk.tries + 1
    journal.open(tasks.write_task(restore, disk, repository, journal.now))


def settle(journal: Journal, restore: VmRestore) -> None:
    """Leave WRITING once every disk has ended; a disk that failed ends the others."""
    rows = disks_of(journal, restore)
    states = {disk.state for disk in rows}
    bad = {DiskTaskState.FAILED, DiskTaskState.CANCELLED}
    if restore.state is not VmRestoreState.WRITING:
        return
    if states == {DiskTaskState.SUCCEEDED}:
        restore.state = VmRestoreState.FINISHING
        open_restore_step(journal, restore, FINISH.name, _ending(restore, rows), f"finishing {restore.target_name}")
        return
    if states & bad or restore.cancel_requested:
        stop_disks(journal, restore)
    if all(disk.state.final for disk in rows):
        failed = next((disk for disk in rows if disk.state is DiskTaskState.FAILED), None)
        undo(journal, restore, failed.failure if failed is not None else None)


def stop_disks(journal: Journal, restore: VmRestore) -> None:
    """Cancel what is still being written, or waits to be."""
    for disk in disks_of(journal, restore):
        if disk.state is DiskTaskState.WAITING:
            disk.state, disk.retry_at = DiskTaskState.CANCELLED, None
    for row in journal.session.scalars(select(LedgerTask).where(LedgerTask.vm_restore_id == restore.id)).all():
        journal.cancel(row)


def undo(journal: Journal, restore: VmRestore, failure: TaskFailure | None) -> None:
    """Delete what was made, then end: as failed with `failure`, or as cancelled without."""
    restore.failure, restore.cancelled = failure, failure is None
    if not restore.touched:
        end(journal, restore, VmRestoreState.CANCELLED if failure is None else VmRestoreState.FAILED, failure)
        return
    restore.state = VmRestoreState.UNDOING
    request = _ending(restore, disks_of(journal, restore))
    open_restore_step(journal, restore, UNDO.name, request, f"undoing the restore of {restore.target_name}")


def sweep_later(journal: Journal, restore: VmRestore) -> None:
    """Look once more for a VM of which no proxy said that it was made: one that was frozen may make it yet."""
    if restore.kind is VmRestoreKind.NEW and restore.vm_ref is None:
        title = f"looking again for what is left of the restore of {restore.target_name}"
        step = open_restore_step(journal, restore, SWEEP.name, _ending(restore, disks_of(journal, restore)), title)
        step.state, step.retry_at = StepState.WAITING, journal.now + SWEEP_S


def end_undone(journal: Journal, restore: VmRestore) -> None:
    """Bring one that has been undone to its final state."""
    state = VmRestoreState.CANCELLED if restore.cancelled else VmRestoreState.FAILED
    end(journal, restore, state, restore.failure)


def end(journal: Journal, restore: VmRestore, state: VmRestoreState, failure: TaskFailure | None = None) -> None:
    """Bring it to a final state."""
    restore.state, restore.failure, restore.ended_at = state, failure or restore.failure, journal.now
    logger.info("restore %s of VM %s: %s%s", restore.id, restore.vm_name, state, f": {failure}" if failure else "")


def served_datastore(restore: VmRestore) -> str:
    """What a host calls what it mounts of a proxy."""
    return f"proxyfleet-{(restore.share or '')[:12]}"


def disks_of(journal: Journal, restore: VmRestore) -> list[RestoredDisk]:
    """Its disks, in order of their keys."""
    of_restore = select(RestoredDisk).where(RestoredDisk.restore_id == restore.id).order_by(RestoredDisk.disk_key)
    return list(journal.session.scalars(of_restore).all())


def repository_of(journal: Journal, restore: VmRestore) -> RepositoryReference:
    """Where it is restored from; raises `NoSuchRepositoryError`."""
    return _repository(journal, restore)


def _repository(journal: Journal, restore: VmRestore) -> RepositoryReference:
    return reference(journal.session.get(Repository, restore.repository), restore.repository)


def _vcenter(journal: Journal, restore: VmRestore) -> VcenterReference:
    vcenter = journal.session.get(Vcenter, restore.vcenter)
    if vcenter is None:
        raise NoSuchVcenterError(f"vCenter {restore.vcenter!r}", why="it is not declared any more")
    return account_of(vcenter).reference


def _ending(restore: VmRestore, rows: list[RestoredDisk]) -> EndRequest:
    return EndRequest(
        restore=restore.id,
        kind=restore.kind,
        vm_ref=restore.vm_ref,
        instance_uuid=restore.instance_uuid,
        name=restore.target_name,
        tracks_changes=restore.tracks_changes and restore.kind is VmRestoreKind.OVERWRITE,
        power_on=restore.wishes.power_on,
        disks=tuple(disk.disk_key for disk in rows),
        uuids=tuple(uuid for disk in rows if (uuid := _uuid(disk)) is not None),
        datastore=restore.wishes.datastore,
    )


def _served_files(restore: VmRestore) -> dict[str, str]:
    """The files of a VM's disks that runs from its restore point."""
    served = restore.served.disks if restore.served is not None else ()
    return {disk.key: f"[{served_datastore(restore)}] {disk.path}" for disk in served}


def _uuid(disk: RestoredDisk) -> str | None:
    """The uuid of a disk that is to be written."""
    target = disk.target.vsphere if disk.target is not None else None
    return target.uuid if target is not None else None


def open_restore_step(journal: Journal, restore: VmRestore, kind: str, request: Frozen, title: str) -> VcenterStep:
    """Have something done for a restore at its vCenter."""
    return open_step(
        journal,
        kind,
        vcenter=restore.vcenter,
        subject=restore.id,
        title=title,
        request=request,
        vm_ref=restore.vm_ref,
        priority=STEP_PRIORITY,
    )


def _declared_datastores(journal: Journal, vcenter: str) -> dict[str, str]:
    """What the vCenter calls each datastore that is declared, and what the fleet file does."""
    of_vcenter = select(Datastore).where(Datastore.kind == DatastoreKind.VSPHERE, Datastore.vcenter == vcenter)
    return {row.vsphere_name or row.name: row.name for row in journal.session.scalars(of_vcenter)}


def _bases(journal: Journal, restore: VmRestore) -> dict[str, TrackingMark]:
    of_point = select(ChangeBaseOfPoint).where(
        ChangeBaseOfPoint.repository == restore.repository,
        ChangeBaseOfPoint.vm_id == restore.vm_id,
        ChangeBaseOfPoint.point == restore.point,
    )
    wanted = {disk.disk_key for disk in disks_of(journal, restore)}
    return {row.disk_key: row.mark for row in journal.session.scalars(of_point) if row.disk_key in wanted}
