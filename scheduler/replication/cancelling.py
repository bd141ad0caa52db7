"""How what was asked for a replica ends early: nothing of it has begun, or it is taken back, or it is finished.

While a run moves the disks, the run is cancelled, and what a failback wrote of the original is taken out of it. A
step that a proxy has begun is taken back where that can be, of a failover, and finished otherwise.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.outcome import TaskFailure
from scheduler.replication.asking import find_replica
from scheduler.replication.operating import active_operation
from scheduler.runs.journal import Journal
from scheduler.state.errors import ReplicaStateError
from scheduler.state.models import (
    LedgerTask,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    Run,
    WorkState,
)

FAILOVERS: Final = (ReplicaOperationKind.FAILOVER, ReplicaOperationKind.PLANNED_FAILOVER)


def ask_to_cancel(session: Session, name: str) -> ReplicaOperation:
    """Ask for the end of what is under way with a replica.

    Raises what `find_replica` does, or `ReplicaStateError`.
    """
    replica = find_replica(session, name)
    operation = active_operation(session, replica.id)
    if operation is None:
        raise ReplicaStateError(
            f"replica {replica.name}",
            why="nothing that was asked for it is under way",
            remedy="A run of its job is cancelled by `scheduler run cancel`.",
        )
    if operation.undoing or (operation.step and operation.kind not in FAILOVERS):
        how = "it is being taken back already" if operation.undoing else "part of it is done, and the rest follows"
        raise ReplicaStateError(f"{operation.kind.value} of replica {replica.name}", why=how)
    operation.cancel_requested = True
    if operation.run_id is not None and operation.step == 0:
        session.get_one(Run, operation.run_id).cancel_requested = True
    return operation


def owed() -> ColumnElement[bool]:
    """Operations to be cancelled that haven't begun, or whose step a proxy hasn't been told to stop."""
    untold = exists().where(LedgerTask.operation_id == ReplicaOperation.id, LedgerTask.cancelling.is_(False))
    return and_(
        ReplicaOperation.cancel_requested,
        ReplicaOperation.undoing.is_(False),
        or_(
            ReplicaOperation.state == WorkState.REQUESTED, and_(ReplicaOperation.state == WorkState.RUNNING, untold)
        ),
    )


def stop(journal: Journal, operation: ReplicaOperation) -> LedgerTask | None:
    """Have a proxy told to stop; the step that waits to be tried again, which nobody has to be told to stop."""
    tasks = select(LedgerTask).where(LedgerTask.operation_id == operation.id, LedgerTask.cancelling.is_(False))
    row = journal.session.scalars(tasks).first()
    if row is None or row.state is WorkState.WAITING:
        return row
    journal.cancel(row)
    return None


def cancelled(operation: ReplicaOperation, replica: Replica, failed: TaskFailure | None) -> TaskFailure:
    """What a command says that waited for it; `failed`: what had gone wrong by then."""
    why = "it was cancelled" if failed is None else f"it was cancelled, after it had failed: {failed}"
    return TaskFailure.of(CancelledError(f"{operation.kind.value} of replica {replica.name}", why=why))
