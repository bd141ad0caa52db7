"""What follows what in an operation: its steps, in order, each of which may be repeated.

`REQUESTED -> RUNNING(step) -> SUCCEEDED | FAILED | CANCELLED`. A failback that fails once the original may have
been written is taken out of it again by steps of its own; so is a failover that is cancelled when it has begun.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.contract.names import AUTOMATIC, CompressionLevel
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.replication_outcome import ReplicaPointResult
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication import tasks
from scheduler.replication.cancelling import FAILOVERS, cancelled, owed, stop
from scheduler.replication.places import reached
from scheduler.replication.points import add_point, newest_point, remove_surplus
from scheduler.replication.steps import steps_of
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.state.asking import ask_for_run, new_id
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Job,
    LedgerTask,
    Priority,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaPoint,
    ReplicaState,
    Run,
    RunState,
    VmRun,
    WorkState,
)

logger = logging.getLogger(__name__)

RETRY_S: Final = 15.0
TRIES: Final = 20
"""A step is tried again for some minutes, if what it failed for may pass."""
_FINAL_RUNS: Final = [state for state in RunState if state.final]

Kind = ReplicaOperationKind
_BECOMES: Final[Mapping[Kind, ReplicaState]] = {
    Kind.FAILOVER: ReplicaState.FAILED_OVER,
    Kind.PLANNED_FAILOVER: ReplicaState.FAILED_OVER,
    Kind.PERMANENT: ReplicaState.PERMANENT,
    Kind.FAILBACK: ReplicaState.FAILED_BACK,
    Kind.COMMIT: ReplicaState.STANDBY,
}


def due() -> ColumnElement[bool]:
    """Whether `advance` would find something."""
    return or_(
        exists().where(ReplicaOperation.state == WorkState.REQUESTED),
        exists().where(_run_has_ended()),
        exists().where(owed()),
    )


def advance(journal: Journal) -> None:
    """Begin what was asked for, and go on with what waited for a run."""
    session = journal.session
    for operation in session.scalars(select(ReplicaOperation).where(owed())).all():
        _cancel(journal, operation)
    requested = select(ReplicaOperation).where(ReplicaOperation.state == WorkState.REQUESTED)
    for operation in session.scalars(requested.order_by(ReplicaOperation.created_at)).all():
        operation.state = WorkState.RUNNING
        _take(journal, operation)
    for operation in session.scalars(select(ReplicaOperation).where(_run_has_ended())).all():
        _after_run(journal, operation, session.get_one(Run, operation.run_id))


def record_step(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """Go on to the next step, or end."""
    session = journal.session
    operation = session.get_one(ReplicaOperation, row.operation_id)
    failure = outcome.failure or row.failure
    if outcome.failure is not None and outcome.failure.retryable and row.tries < TRIES:
        row.state, row.failure, row.cancelling = WorkState.WAITING, outcome.failure, False
        row.retry_at = journal.now + RETRY_S
        if not operation.undoing:  # why it is taken back is what matters in the end
            operation.failure = outcome.failure
        journal.keep(row)
        return
    stopped = outcome.result is None and outcome.failure is None
    if stopped and operation.cancel_requested and not operation.undoing:
        _after_cancel(journal, operation, row, begun=outcome.attempts > 0 or row.tries > 1)
        return
    journal.close(row)
    if outcome.result is None:
        failure = failure or TaskFailure.of(CancelledError(row.title, why="it was cancelled"))
        if operation.kind is Kind.FAILBACK and not operation.undoing:  # what was written can't be used
            _take_out(journal, operation, failure)
        else:
            _end(journal, operation, WorkState.FAILED, failure)
        return
    if not operation.undoing:
        operation.failure = None
        operation.cancel_requested &= operation.kind in FAILOVERS  # what has begun otherwise is finished
    replica = session.get_one(Replica, operation.replica_id)
    if isinstance(outcome.result, ReplicaPointResult):
        add_point(journal, replica, outcome.result.point)
    if operation.cancel_requested and not operation.undoing:  # it was done before anybody could stop it
        _take_back(journal, operation, begun=True)
        return
    operation.step += 1
    _take(journal, operation)


def _cancel(journal: Journal, operation: ReplicaOperation) -> None:
    if operation.state is WorkState.REQUESTED:
        replica = journal.session.get_one(Replica, operation.replica_id)
        _end(journal, operation, WorkState.CANCELLED, cancelled(operation, replica, operation.failure))
        return
    waiting = stop(journal, operation)
    if waiting is not None:
        _after_cancel(journal, operation, waiting, begun=True)


def _after_cancel(journal: Journal, operation: ReplicaOperation, row: LedgerTask, *, begun: bool) -> None:
    """A step was stopped: it is taken back, or else done again if anything of it may have been done."""
    if begun and operation.kind not in FAILOVERS:
        operation.cancel_requested, row.cancelling = False, False
        if row.state is not WorkState.WAITING:
            row.state, row.retry_at = WorkState.WAITING, journal.now
            journal.keep(row)
        return
    journal.close(row)
    _take_back(journal, operation, begun=begun)


def _take_back(journal: Journal, operation: ReplicaOperation, *, begun: bool) -> None:
    replica = journal.session.get_one(Replica, operation.replica_id)
    operation.failure = cancelled(operation, replica, operation.failure)
    if begun and operation.kind in FAILOVERS:
        operation.undoing, operation.step = True, 0
        operation.point = newest_point(journal.session, replica.id, journal.now)
        _take(journal, operation)
    else:
        _end(journal, operation, WorkState.CANCELLED, operation.failure)


def _take(journal: Journal, operation: ReplicaOperation) -> None:
    """Do the present step; after the last one, end."""
    replica = journal.session.get_one(Replica, operation.replica_id)
    steps = steps_of(replica, operation)
    if operation.step >= len(steps):
        _succeed(journal, operation, replica)
        return
    body = steps[operation.step](replica, operation)
    if body is not None:
        journal.open(tasks.operation_task(operation, replica, body, journal.now))
        return
    try:
        operation.run_id = _start_run(journal, operation, replica).id
    except ProxyfleetError as error:
        _end(journal, operation, WorkState.FAILED, TaskFailure.of(error))


def _start_run(journal: Journal, operation: ReplicaOperation, replica: Replica) -> Run:
    session = journal.session
    if operation.kind is Kind.PLANNED_FAILOVER:
        run = ask_for_run(session, replica.job, now=journal.now)
        run.vms, run.criteria = (replica.vm_name,), run.criteria.model_copy(update={"select": ()})
        return run
    job = session.get(Job, replica.job)
    run = Run(
        id=new_id(journal.now),
        job=replica.job,
        state=RunState.REQUESTED,
        created_at=journal.now,
        repository="",
        replica=(job.replica if job is not None else None) or ReplicaTerms(datastore=replica.place.datastore),
        failback_of=replica.id,
        level=job.level if job is not None else CompressionLevel.OPTIMAL,
        transport_mode=AUTOMATIC,
        failover_to_network=True,
        priority=Priority.HIGH,
        retry_count=job.retry_count if job is not None else 3,
        retry_wait_seconds=job.retry_wait_seconds if job is not None else 60.0,
        vms=(replica.vm_name,),
    )
    session.add(run)
    return run


def _after_run(journal: Journal, operation: ReplicaOperation, run: Run) -> None:
    session = journal.session
    if run.state is RunState.SUCCEEDED and not operation.cancel_requested:
        if operation.kind is Kind.PLANNED_FAILOVER:
            operation.point = newest_point(session, operation.replica_id, journal.now)
        operation.step += 1
        _take(journal, operation)
        return
    failure = TaskFailure(code="run-failed", what=f"run {run.id} of job {run.job}", why=_why_it_ended(session, run))
    replica = session.get_one(Replica, operation.replica_id)
    if operation.cancel_requested:
        failure = cancelled(operation, replica, failure if run.state is not RunState.CANCELLED else None)
    if operation.kind is Kind.FAILBACK and replica.before is not None:
        _take_out(journal, operation, failure)
    else:
        _end(journal, operation, _broken_off(operation), failure)


def _why_it_ended(session: Session, run: Run) -> str:
    """What became of a run of one VM, and of the first of its disks that failed."""
    vm_run = session.scalars(select(VmRun).where(VmRun.run_id == run.id)).first()
    disks = select(DiskTask).where(DiskTask.run_id == run.id, DiskTask.state == DiskTaskState.FAILED)
    disk = session.scalars(disks.order_by(DiskTask.id)).first()
    reason = vm_run.reason if vm_run is not None and vm_run.reason is not None else run.reason
    failure = str(disk.failure) if disk is not None and disk.failure is not None else None
    return ": ".join(filter(None, (run.state.value, reason, failure)))


def _take_out(journal: Journal, operation: ReplicaOperation, failure: TaskFailure) -> None:
    """Take a failback out of the original again."""
    operation.failure, operation.undoing, operation.step = failure, True, 0
    _take(journal, operation)


def _succeed(journal: Journal, operation: ReplicaOperation, replica: Replica) -> None:
    session = journal.session
    if operation.undoing:
        replica.before = None
        _end(journal, operation, _broken_off(operation), operation.failure)
        return
    if operation.kind is Kind.UNDO:
        back = replica.state is ReplicaState.FAILED_BACK
        if back:
            _drop_points_of_commits(journal, replica)
        replica.state = ReplicaState.FAILED_OVER if back else ReplicaState.STANDBY
        replica.point = replica.point if back else None
    else:
        replica.state = _BECOMES[operation.kind]
        replica.point = operation.point if replica.state is ReplicaState.FAILED_OVER else replica.point
    if operation.kind in {Kind.UNDO, Kind.COMMIT}:
        replica.before = None
    if replica.state is ReplicaState.STANDBY:
        replica.point = None
    if replica.state is ReplicaState.PERMANENT:
        for point in session.scalars(select(ReplicaPoint).where(ReplicaPoint.replica_id == replica.id)).all():
            session.delete(point)  # they went with the mark
    job = session.get(Job, replica.job)
    if operation.kind is Kind.COMMIT and job is not None and job.replica is not None:
        remove_surplus(journal, replica, job.replica.points)
    replica.changed_at = journal.now
    operation.state, operation.ended_at = WorkState.SUCCEEDED, journal.now
    logger.info("%s of replica %s: done, it is %s", operation.kind.value, replica.name, replica.state.value)


def _drop_points_of_commits(journal: Journal, replica: Replica) -> None:
    """Commits that failed since it failed back may have kept it as it is in use: nothing to go back to."""
    session = journal.session
    commits = select(ReplicaOperation.point).where(
        ReplicaOperation.replica_id == replica.id,
        ReplicaOperation.kind == Kind.COMMIT,
        ReplicaOperation.created_at >= replica.changed_at,
    )
    of_commits = select(ReplicaPoint).where(ReplicaPoint.replica_id == replica.id, ReplicaPoint.point.in_(commits))
    for point in session.scalars(of_commits).all():
        journal.open(tasks.remove_task(replica, reached(replica), point.point, journal.now))
        session.delete(point)


def _broken_off(operation: ReplicaOperation) -> WorkState:
    return WorkState.CANCELLED if operation.cancel_requested else WorkState.FAILED


def _end(journal: Journal, operation: ReplicaOperation, state: WorkState, failure: TaskFailure | None) -> None:
    operation.state, operation.failure, operation.ended_at = state, failure, journal.now
    what = f"{operation.kind.value} of replica {operation.replica_id}"
    logger.warning("%s: %s: %s", what, state.value, failure)


def _run_has_ended() -> ColumnElement[bool]:
    """The run of an operation that is at the step of it: always its first."""
    final = exists().where(Run.id == ReplicaOperation.run_id, Run.state.in_(_FINAL_RUNS))
    return and_(
        ReplicaOperation.state == WorkState.RUNNING,
        ReplicaOperation.step == 0,
        ReplicaOperation.undoing.is_(False),
        final,
    )
