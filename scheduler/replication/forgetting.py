"""How replicas that no job makes any more leave the records; their files stay."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.replication.asking import find_replica, require_idle
from scheduler.state.errors import ReplicaBusyError, ReplicaStateError
from scheduler.state.models import Job, JobKind, LedgerTask, ReplicaState

_IN_USE = (ReplicaState.FAILED_OVER, ReplicaState.FAILED_BACK)


def forget_replica(session: Session, name: str) -> None:
    """Forget a replica, its restore points, and what was asked for it.

    Raises what `find_replica` does, `ReplicaStateError`, or `ReplicaBusyError`.
    """
    replica = find_replica(session, name)
    what = f"replica {replica.name}"
    require_idle(session, replica, f"forgetting of {what}")
    if replica.state in _IN_USE:
        decide = "`undo` or `permanent`" if replica.state is ReplicaState.FAILED_OVER else "`commit` or `undo`"
        raise ReplicaStateError(what, why=f"it is {replica.state.value}", remedy=f"Decide by {decide} first.")
    job = session.get(Job, replica.job)
    if job is not None and job.kind is JobKind.REPLICATION:
        raise ReplicaStateError(
            what,
            why=f"job {job.name} brings it up to date, and would make it known again",
            remedy=f"Delete the job first: `scheduler job delete {job.name}`.",
        )
    leaving = session.scalars(select(LedgerTask.id).where(LedgerTask.replica_id == replica.id)).first()
    if leaving is not None:
        raise ReplicaBusyError(what, why="a restore point of it is being removed", remedy="Try again in a while.")
    session.delete(replica)
