"""What is forgotten of the past, and when: runs, restores, requests and scans that ended long ago."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.orm import Session, aliased

from scheduler.state.models import (
    DiskTask,
    LedgerTask,
    Point,
    ReplicaOperation,
    Request,
    Restore,
    Run,
    RunState,
    SnapshotEntry,
    SnapshotState,
    VcenterScan,
    VmRestore,
    VmRestoreState,
    VmRun,
    WorkState,
)

MOST_DISKS: Final = 5_000
"""Of the runs that are forgotten at once: one may have more, and then goes alone."""
MOST_ROWS: Final = 500
_WORK_ENDED: Final = [state for state in WorkState if state.final]


def forget_runs(session: Session, before: float) -> int:
    """Forget the oldest runs that ended before `before` (Unix seconds), some at a time; how many.

    A run stays while a restore point of it exists, whose VM's place it knows, while something is still to be done
    for it, while a snapshot of it isn't removed, and as long as it is its job's newest.
    """
    disks = select(func.count()).where(DiskTask.run_id == Run.id).scalar_subquery()
    old = select(Run.id, disks).where(_is_forgotten(before)).order_by(Run.created_at).limit(MOST_ROWS)
    chosen: list[str] = []
    total = 0
    for run_id, count in session.execute(old):
        total += count
        if chosen and total > MOST_DISKS:
            break
        chosen.append(run_id)
    if chosen:
        session.execute(delete(Run).where(Run.id.in_(chosen)))
    return len(chosen)


def forget_the_rest(session: Session, before: float) -> int:
    """Forget what else ended before `before`, some at a time: restores, requests, scans, operations, snapshots."""
    restored = [state for state in VmRestoreState if state.final]
    count = 0
    for kind, ended in (
        (Restore, and_(Restore.state.in_(_WORK_ENDED), Restore.ended_at < before)),
        (Request, and_(Request.state.in_(_WORK_ENDED), Request.ended_at < before)),
        (VcenterScan, and_(VcenterScan.state.in_(_WORK_ENDED), VcenterScan.ended_at < before)),
        (VmRestore, and_(VmRestore.state.in_(restored), VmRestore.ended_at < before)),
        (ReplicaOperation, and_(ReplicaOperation.state.in_(_WORK_ENDED), ReplicaOperation.ended_at < before)),
        (SnapshotEntry, and_(SnapshotEntry.state == SnapshotState.GONE, SnapshotEntry.removed_at < before)),
    ):
        ids = session.scalars(select(kind.id).where(ended).limit(MOST_ROWS)).all()
        if ids:
            session.execute(delete(kind).where(kind.id.in_(ids)))
            count += len(ids)
    return count


def _is_forgotten(before: float) -> ColumnElement[bool]:
    newer = aliased(Run)
    of_run = VmRun.run_id == Run.id
    has_point = exists().where(of_run, Point.vm_id == VmRun.vm_id, Point.point == VmRun.repository_run)
    has_work = exists().where(LedgerTask.run_id == Run.id)
    unremoved = SnapshotEntry.state.not_in([SnapshotState.GONE])
    has_snapshot = exists().where(of_run, SnapshotEntry.vm_run_id == VmRun.id, unremoved)
    is_newest = ~exists().where(newer.job == Run.job, newer.created_at > Run.created_at)
    ended = Run.state.in_([state for state in RunState if state.final])
    return and_(ended, Run.ended_at < before, ~has_point, ~has_work, ~has_snapshot, ~is_newest)
