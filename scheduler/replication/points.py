"""Restore points of replicas: those that exist, and those that go."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaRemovePoint
from proxy_worker.contract.replication_outcome import ReplicaPointSummary
from scheduler.planning.replicas import surplus
from scheduler.replication import tasks
from scheduler.replication.asking import points_of
from scheduler.replication.places import reached
from scheduler.runs.journal import Journal
from scheduler.state.models import LedgerTask, Replica, ReplicaPoint


def add_point(journal: Journal, replica: Replica, point: ReplicaPointSummary) -> None:
    """Know of a restore point of a replica."""
    session = journal.session
    row = session.get(ReplicaPoint, (replica.id, point.run)) or ReplicaPoint(replica_id=replica.id, point=point.run)
    row.created_at, row.reflinked, row.size_bytes = point.created_at, point.reflinked, point.size_bytes
    session.add(row)
    session.flush()


def newest_point(session: Session, replica_id: str, now: float) -> str | None:
    """The newest restore point of a replica, if it has any."""
    return next((point.point for point in reversed(points_of(session, replica_id, now))), None)


def remove_surplus(journal: Journal, replica: Replica, keep: int) -> None:
    """Have the oldest points removed that are too many."""
    session = journal.session
    points = [point.point for point in points_of(session, replica.id, journal.now)]
    leaving = {
        row.body.run
        for row in session.scalars(select(LedgerTask).where(LedgerTask.replica_id == replica.id))
        if isinstance(row.body, ReplicaRemovePoint)
    }
    for point in surplus(points, keep):
        if point not in leaving:
            journal.open(tasks.remove_task(replica, reached(replica), point, journal.now))
