"""What is under way with a replica."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.state.models import ReplicaOperation, WorkState

_ACTIVE = [state for state in WorkState if not state.final]


def active_operation(session: Session, replica_id: str) -> ReplicaOperation | None:
    """The operation of a replica that hasn't ended, if any."""
    of_replica = select(ReplicaOperation).where(
        ReplicaOperation.replica_id == replica_id, ReplicaOperation.state.in_(_ACTIVE)
    )
    return session.scalars(of_replica).first()


def active_operations(session: Session) -> dict[str, ReplicaOperation]:
    """Those of all replicas, by the replica's id."""
    active = select(ReplicaOperation).where(ReplicaOperation.state.in_(_ACTIVE))
    return {operation.replica_id: operation for operation in session.scalars(active)}
