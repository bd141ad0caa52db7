"""What changes are relative to: where change tracking stood in each restore point."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from scheduler.replication.points import newest_point
from scheduler.state.models import ChangeBaseOfPoint, DiskTask, Point, Run, VmRun
from scheduler.vcenters.freezing import Base


@dataclass(frozen=True, slots=True)
class Former:
    """What the newest restore point of a VM leaves to its next run."""

    bases: dict[str, Base]
    """By disk key."""
    keys: tuple[str, ...]
    """Of its disks."""


def former_disks(session: Session, run: Run, vm_run: VmRun, now: float) -> Former:
    """What changes can be relative to in a VM run: restore points in its repository, or its replica's newest."""
    if vm_run.replica_id is not None:
        return _of_replica(session, vm_run.replica_id, now)
    vm_id = vm_run.vm_id or ""
    return Former(_bases_of(session, run.repository, vm_id), _disks_of_newest_point(session, run.repository, vm_id))


def _of_replica(session: Session, replica_id: str, now: float) -> Former:
    """The newest point only: the digests of a replica are of what was written last.

    A disk that tracking was caught lying about has none, as in `keep_bases`.
    """
    point = newest_point(session, replica_id, now)
    if point is None:
        return Former({}, ())
    of_run = select(VmRun.id).where(VmRun.replica_id == replica_id, VmRun.repository_run == point)
    disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id.in_(of_run))).all()
    return Former(
        bases={
            disk.disk_key: Base(point=point, mark=disk.tracking)
            for disk in disks
            if disk.tracking is not None and disk.result is not None and disk.result.report.alarm is None
        },
        keys=tuple(disk.disk_key for disk in disks),
    )


def _bases_of(session: Session, repository: str, vm_id: str) -> dict[str, Base]:
    """By disk key, the base in the newest restore point that has one."""
    of_point = and_(
        ChangeBaseOfPoint.repository == Point.repository,
        ChangeBaseOfPoint.vm_id == Point.vm_id,
        ChangeBaseOfPoint.point == Point.point,
    )
    rows = session.scalars(
        select(ChangeBaseOfPoint)
        .join(Point, of_point)
        .where(Point.repository == repository, Point.vm_id == vm_id)
        .order_by(Point.created_at, Point.point)
    )
    return {row.disk_key: Base(point=row.point, mark=row.mark) for row in rows}


def _disks_of_newest_point(session: Session, repository: str, vm_id: str) -> tuple[str, ...]:
    """Keys of the disks in the newest restore point of a VM."""
    newest = session.scalars(
        select(Point)
        .where(Point.repository == repository, Point.vm_id == vm_id)
        .order_by(Point.created_at.desc(), Point.point.desc())
        .limit(1)
    ).first()
    return () if newest is None else tuple(disk.key for disk in newest.disks)


def keep_bases(session: Session, run: Run, vm_run: VmRun) -> None:
    """Keep where tracking stood for the restore point that a VM run has become.

    A disk that tracking was caught lying about has none: its next backup reads it whole again.
    """
    for disk in session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)):
        if disk.tracking is None or disk.result is None or disk.result.report.alarm is not None:
            continue
        base = ChangeBaseOfPoint(
            repository=run.repository,
            vm_id=vm_run.vm_id or "",
            point=vm_run.repository_run or "",
            disk_key=disk.disk_key,
            mark=disk.tracking,
        )
        session.merge(base)
