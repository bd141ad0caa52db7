"""What ended steps and tasks mean to a restore, and what is due by time or by a cancel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import ColumnElement, exists, or_, select

from proxy_worker.contract.disks import DiskRestore, DiskRestoreResult
from proxy_worker.contract.outcome import TaskFailure, VmCreateResult
from proxy_worker.contract.using import PointRelease, PointServe
from scheduler.restores import flow, giving_up, instant
from scheduler.restores.ending import FINISH, SWEEP, UNDO, Ended
from scheduler.restores.instant_steps import MOUNT, MOVE, START, UNMOUNT
from scheduler.restores.making_ready import ATTACH, READY, Ready
from scheduler.restores.placing import PLACE, Placed
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.steps import StepHandling, try_later
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTaskState,
    LedgerTask,
    RestoredDisk,
    VcenterStep,
    VmRestore,
    VmRestoreState,
)
from scheduler.vcenters.steps import StepOutcome

logger = logging.getLogger(__name__)

DISK_RETRIES: Final = 3
DISK_RETRY_S: Final = 15.0
FINISH_TRIES: Final = 20
"""A restored VM is handed over even if the vCenter is away for a while."""
WRITER_TRIES: Final = 12
WRITER_RETRY_S: Final = 5.0
"""For a minute, a proxy that could write the disks is waited for, before anything is made or powered off."""
NOBODY: Final = "no-such-vcenter"
"""How a step fails whose vCenter isn't declared any more."""
SOON_S: Final = 30.0
LATEST_S: Final = 600.0
"""What must be undone is tried again after `SOON_S`, and then ever later up to this, until it is."""


def advance(journal: Journal) -> None:
    """Begin what was asked for, try again what is due, pass cancels on."""
    session = journal.session
    requested = select(VmRestore).where(VmRestore.state == VmRestoreState.REQUESTED).order_by(VmRestore.created_at)
    for restore in session.scalars(requested).all():
        flow.begin(journal, restore)
    for restore in session.scalars(select(VmRestore).where(_cancel_is_owed())).all():
        flow.stop_disks(journal, restore)
        session.flush()
        flow.settle(journal, restore)
    for restore in session.scalars(select(VmRestore).where(instant.going_on())).all():
        instant.go_on(journal, restore)
    for restore in session.scalars(select(VmRestore).where(giving_up.given_up())).all():
        giving_up.give_up(journal, restore)
    for disk in session.scalars(select(RestoredDisk).where(_retry_is_due(journal.now))).all():
        restore = session.get_one(VmRestore, disk.restore_id)
        try:
            repository = flow.repository_of(journal, restore)
        except NoSuchRepositoryError as error:
            disk.state, disk.failure = DiskTaskState.FAILED, TaskFailure.of(error)
            session.flush()
            flow.settle(journal, restore)
            continue
        flow.queue(journal, restore, disk, repository)


def due(now: float) -> ColumnElement[bool]:
    """Whether `advance` would find something."""
    return or_(
        exists().where(VmRestore.state == VmRestoreState.REQUESTED),
        exists().where(_cancel_is_owed()),
        exists().where(instant.going_on()),
        exists().where(giving_up.given_up()),
        exists().where(_retry_is_due(now)),
    )


def record_task(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """Record how a proxy's task for a restore ended. Without a result or a failure it was cancelled."""
    restore = journal.session.get_one(VmRestore, row.vm_restore_id)
    failure = outcome.failure or row.failure
    body = row.body
    if isinstance(body, PointRelease):
        instant.record_release(journal, row, restore, outcome)
        return
    journal.close(row)
    if isinstance(body, DiskRestore):
        disk = journal.session.get_one(RestoredDisk, f"{restore.id}.{body.disk_key}")
        _record_disk(journal, restore, disk, outcome, failure)
        journal.session.flush()
        flow.settle(journal, restore)
        return
    if isinstance(body, PointServe):
        instant.record_serve(journal, restore, outcome, failure)
        return
    if restore.state is not VmRestoreState.CREATING:
        return
    result = outcome.result
    if isinstance(result, VmCreateResult):
        restore.vm_ref = result.vm
        restore.warnings = (*restore.warnings, *result.warnings)
    if isinstance(result, VmCreateResult) and not restore.cancel_requested:
        if restore.wishes.instant:
            instant.start(journal, restore)
        else:
            flow.write(journal, restore, result.disks)
    else:
        flow.undo(journal, restore, None if restore.cancel_requested else failure)


def _record_disk(
    journal: Journal, restore: VmRestore, disk: RestoredDisk, outcome: Outcome, failure: TaskFailure | None
) -> None:
    disk.attempts += outcome.attempts
    disk.proxy = outcome.proxy or disk.proxy
    if isinstance(outcome.result, DiskRestoreResult):
        disk.state, disk.report, disk.failure = DiskTaskState.SUCCEEDED, outcome.result.report, None
        return
    if failure is None or restore.cancel_requested:
        disk.state = DiskTaskState.CANCELLED
        return
    logger.warning("restore %s: disk %s: %s", restore.id, disk.disk_key, failure)
    disk.failure = failure
    if failure.retryable and disk.tries <= DISK_RETRIES and restore.state is VmRestoreState.WRITING:
        disk.state, disk.retry_at = DiskTaskState.WAITING, journal.now + DISK_RETRY_S
    else:
        disk.state = DiskTaskState.FAILED


def _record_place(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    restore = journal.session.get_one(VmRestore, step.subject)
    placed, failure = outcome.answer, outcome.failure
    if isinstance(placed, Placed) and not restore.cancel_requested:
        failure = (
            instant.unservable(journal, restore)
            if restore.wishes.instant
            else flow.unwritable(journal, restore, placed.datastores)
        )
        if failure is not None and step.tries < WRITER_TRIES:
            try_later(journal, step, failure, WRITER_RETRY_S)
            return
    journal.close_step(step)
    if not isinstance(placed, Placed) or failure is not None:
        flow.undo(journal, restore, None if restore.cancel_requested else failure)
        return
    restore.place, restore.tracks_changes = placed.place, placed.tracks_changes
    restore.vm_ref = placed.vm_ref or restore.vm_ref
    if restore.wishes.instant:
        instant.serve(journal, restore)
    else:
        flow.create(journal, restore)


def _record_ready(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    restore = journal.session.get_one(VmRestore, step.subject)
    journal.close_step(step)
    ready = outcome.answer
    if isinstance(ready, Ready) and not restore.cancel_requested:
        flow.write(journal, restore, ready.disks)
    else:
        flow.undo(journal, restore, None if restore.cancel_requested else outcome.failure)


def _record_finish(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    restore = journal.session.get_one(VmRestore, step.subject)
    ended, failure = outcome.answer, outcome.failure
    if isinstance(ended, Ended):
        journal.close_step(step)
        restore.warnings = (*restore.warnings, *ended.warnings)
        flow.end(journal, restore, VmRestoreState.SUCCEEDED)
    elif failure is not None and failure.retryable and step.tries < FINISH_TRIES:
        try_later(journal, step, failure, SOON_S)
    else:
        journal.close_step(step)
        restore.warnings = (*restore.warnings, "its disks are restored, and the VM is left as it is")
        flow.end(journal, restore, VmRestoreState.FAILED, failure)


def _record_undo(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    restore = journal.session.get_one(VmRestore, step.subject)
    failure = outcome.failure
    nobody = failure is not None and failure.code == NOBODY
    if nobody:
        restore.warnings = (*restore.warnings, f"what it made in {restore.vcenter} is left there: {failure}")
    elif not isinstance(outcome.answer, Ended):
        logger.warning("restore %s isn't undone yet: %s", restore.id, outcome.failure)
        try_later(journal, step, outcome.failure, min(SOON_S * 2 ** min(step.tries - 1, 10), LATEST_S))
        return
    journal.close_step(step)
    if restore.written:
        restore.warnings = (
            *restore.warnings,
            f"the disks of {restore.target_name} are incomplete: restore them again before it is powered on",
        )
    if not instant.let_go(journal, restore):
        flow.end_undone(journal, restore)
    if not nobody:
        flow.sweep_later(journal, restore)


def _record_sweep(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    failure = outcome.failure
    if failure is not None and failure.code != NOBODY and step.tries < FINISH_TRIES:
        try_later(journal, step, failure, LATEST_S)
    else:
        journal.close_step(step)


def _cancel_is_owed() -> ColumnElement[bool]:
    """Restores that are being written and have a disk whose end hasn't been asked for."""
    task = exists().where(LedgerTask.vm_restore_id == VmRestore.id, LedgerTask.cancelling.is_(False))
    waits = exists().where(RestoredDisk.restore_id == VmRestore.id, RestoredDisk.state == DiskTaskState.WAITING)
    stoppable = VmRestore.state.in_((VmRestoreState.SERVING, VmRestoreState.CREATING, VmRestoreState.WRITING))
    return stoppable & VmRestore.cancel_requested & or_(task, waits)


def _retry_is_due(now: float) -> ColumnElement[bool]:
    return (RestoredDisk.state == DiskTaskState.WAITING) & (RestoredDisk.retry_at <= now)


HANDLING: Final[Mapping[str, StepHandling]] = {
    PLACE.name: StepHandling(_record_place),
    READY.name: StepHandling(_record_ready),
    ATTACH.name: StepHandling(_record_ready),
    FINISH.name: StepHandling(_record_finish),
    UNDO.name: StepHandling(_record_undo),
    SWEEP.name: StepHandling(_record_sweep),
    MOUNT.name: StepHandling(instant.record_mount),
    START.name: StepHandling(instant.record_start),
    MOVE.name: StepHandling(instant.record_move),
    UNMOUNT.name: StepHandling(instant.record_unmount),
}
"""What the journal makes of a restore's steps."""
KINDS: Final = (PLACE, READY, ATTACH, FINISH, UNDO, SWEEP, MOUNT, START, MOVE, UNMOUNT)
"""What the executor performs for restores."""
