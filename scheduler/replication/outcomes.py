"""What ended tasks mean to replicas: a VM run that may begin, a restore point that exists, one that is removed."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.replication import ReplicaRemovePoint
from proxy_worker.contract.replication_outcome import (
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaPointSummary,
    ReplicaRemovePointResult,
)
from proxy_worker.contract.specification import TaskBody
from scheduler.replication import tasks
from scheduler.replication.disks import queue_disk, record_disk
from scheduler.replication.flow import record_step
from scheduler.replication.opening import fail_before_it_began, place_written
from scheduler.replication.points import add_point, remove_surplus
from scheduler.runs.completion import end_vm_run
from scheduler.runs.freezing import freeze
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.warnings import warn
from scheduler.state.models import (
    DiskTask,
    LedgerTask,
    Replica,
    ReplicaPoint,
    ReplicaState,
    Run,
    VmRun,
    VmRunState,
    WorkState,
)

logger = logging.getLogger(__name__)

KINDS: Final = frozenset(
    {
        TaskKind.DISK_RECEIVE,
        TaskKind.DISK_REPLICATE,
        TaskKind.REPLICA_OPEN,
        TaskKind.REPLICA_POINT,
        TaskKind.REPLICA_REMOVE_POINT,
        TaskKind.REPLICA_REVERT,
        TaskKind.REPLICA_MARK,
    }
)
RETRY_S: Final = 15.0
TRIES: Final = 5
"""How often a point is tried to be made, or an unwanted one to be removed: the next run sees to that again."""
TRIES_AT_ORIGINALS: Final = 5_760
"""The same of what an original was kept as, which no run sees to: for a day."""
_FOUND: Final = {"replica-failed-over": ReplicaState.FAILED_OVER, "replica-permanent": ReplicaState.PERMANENT}
"""What a replica is that a proxy refuses to write, by the failure's code."""


def record_task(journal: Journal, row: LedgerTask, outcome: Outcome) -> tuple[str, ...]:
    """Record how a task of a replication ended; answers the VM runs that may have lost their last disk by it.

    Without a result or a failure it was cancelled.
    """
    if row.disk_task_id is not None:
        return (record_disk(journal, row, outcome),)
    if row.operation_id is not None:
        record_step(journal, row, outcome)
    elif row.vm_run_id is None:
        _record_removal(journal, row, outcome)
    elif row.kind is TaskKind.REPLICA_OPEN:
        _record_open(journal, row, outcome)
    else:
        _record_point(journal, row, outcome)
    return ()


def _record_open(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """OPENING -> SNAPSHOTTING, PROTECTING, or RUNNING; or the end."""
    session = journal.session
    vm_run = session.get_one(VmRun, row.vm_run_id)
    run = session.get_one(Run, vm_run.run_id)
    if _tried_later(journal, row, outcome, run):
        return
    journal.close(row)
    replica = session.get_one(Replica, vm_run.replica_id)
    if not isinstance(outcome.result, ReplicaOpenResult) or run.cancel_requested:
        found = _FOUND.get(outcome.failure.code) if outcome.failure is not None else None
        if found is not None and run.failback_of is None and replica.state is ReplicaState.STANDBY:
            # The database was restored from before: what is noted at the replica counts.
            replica.state, replica.changed_at = found, journal.now
        _end_before(journal, run, vm_run, outcome.failure or row.failure)
        return
    for text in outcome.result.warnings:
        warn(vm_run, text)
    if run.failback_of is None:
        _know_points(journal, replica, outcome.result.points)
        if vm_run.place is not None:
            freeze(journal, run, vm_run, vm_run.place)
        else:
            _queue_disks(journal, run, vm_run)
        return
    if replica.before in {point.run for point in outcome.result.points}:
        # An earlier failback that failed couldn't be undone: what lies there now is not what is to be kept.
        _queue_disks(journal, run, vm_run)
        return
    vm_run.state = VmRunState.PROTECTING
    journal.open(tasks.point_task(run, vm_run, tasks.original_point(replica, vm_run), journal.now))


def _record_point(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    session = journal.session
    vm_run = session.get_one(VmRun, row.vm_run_id)
    run = session.get_one(Run, vm_run.run_id)
    if _tried_later(journal, row, outcome, run):
        return
    journal.close(row)
    replica = session.get_one(Replica, vm_run.replica_id)
    result = outcome.result
    if vm_run.state is VmRunState.PROTECTING:
        if not isinstance(result, ReplicaPointResult) or run.cancel_requested:
            # It may have been made all the same.
            journal.open(
                tasks.remove_task(replica, place_written(run, replica), tasks.before_name(vm_run), journal.now)
            )
            _end_before(journal, run, vm_run, outcome.failure or row.failure)
            return
        replica.before = result.point.run
        _queue_disks(journal, run, vm_run)
        return
    if not isinstance(result, ReplicaPointResult):
        why = outcome.failure or row.failure or "cancelled"
        end_vm_run(
            journal,
            vm_run,
            VmRunState.FAILED,
            f"its disks were written, but its replica has no restore point: {why}",
        )
        return
    for text in result.warnings:
        warn(vm_run, text)
    add_point(journal, replica, result.point)
    if replica.state is ReplicaState.NEW:
        replica.state, replica.changed_at = ReplicaState.STANDBY, journal.now
    end_vm_run(journal, vm_run, VmRunState.SUCCEEDED)
    if run.replica is not None:
        remove_surplus(journal, replica, run.replica.points)


def _record_removal(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    body: TaskBody = row.body
    of_original = isinstance(body, ReplicaRemovePoint) and body.run.startswith(tasks.BEFORE)
    if _tried_later(journal, row, outcome, None, tries=TRIES_AT_ORIGINALS if of_original else TRIES):
        return
    journal.close(row)
    if isinstance(outcome.result, ReplicaRemovePointResult) and isinstance(body, ReplicaRemovePoint):
        gone = journal.session.get(ReplicaPoint, (row.replica_id, body.run))
        if gone is not None:
            journal.session.delete(gone)
    else:
        until = "somebody removes it" if of_original else "the next run"
        logger.warning("%s stays until %s: %s", row.title, until, outcome.failure or row.failure)


def _know_points(journal: Journal, replica: Replica, points: tuple[ReplicaPointSummary, ...]) -> None:
    """Take over what the target says: of a point, the word that it was made may have been lost."""
    there = {point.run for point in points}
    for row in journal.session.scalars(select(ReplicaPoint).where(ReplicaPoint.replica_id == replica.id)).all():
        if row.point not in there:
            journal.session.delete(row)
    for point in points:
        add_point(journal, replica, point)


def _queue_disks(journal: Journal, run: Run, vm_run: VmRun) -> None:
    vm_run.state = VmRunState.RUNNING
    of_vm_run = select(DiskTask).where(DiskTask.vm_run_id == vm_run.id).order_by(DiskTask.id)
    for number, disk in enumerate(journal.session.scalars(of_vm_run).all()):
        queue_disk(journal, run, vm_run, disk, configuration=number == 0)


def _end_before(journal: Journal, run: Run, vm_run: VmRun, failure: TaskFailure | None) -> None:
    if run.cancel_requested:
        fail_before_it_began(journal, vm_run, "the run was cancelled", VmRunState.CANCELLED)
    else:
        fail_before_it_began(journal, vm_run, str(failure or "it was cancelled"))


def _tried_later(
    journal: Journal, row: LedgerTask, outcome: Outcome, run: Run | None, *, tries: int = TRIES
) -> bool:
    """Whether what failed is tried again, as it may pass; the row is kept out of the ledger until then."""
    failure = outcome.failure
    cancelled = run is not None and run.cancel_requested
    if failure is None or not failure.retryable or row.tries >= tries or cancelled:
        return False
    row.state, row.failure, row.retry_at = WorkState.WAITING, failure, journal.now + RETRY_S
    journal.keep(row)
    return True
