"""The catalogue of restore points: what commits add, and what a rescan finds in the repository itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import PointDisk, PointSummary, RepositoryListResult, StoreSpace
from scheduler.planning.retention import CLOCK_DIFFERENCE_S
from scheduler.state.models import DiskTask, Point, Repository, Run, VmRun


@dataclass(frozen=True)
class Rescanned:
    """What a rescan changed."""

    found: int
    added: int
    removed: int

    def __str__(self) -> str:
        return f"{self.found} restore points, {self.added} of them new; {self.removed} gone"


def add_point(session: Session, repository: str, summary: PointSummary) -> None:
    """Record a restore point; recording it again changes nothing."""
    session.merge(_row(repository, summary))


def note_space(session: Session, repository: str, space: StoreSpace | None, now: float) -> None:
    """Record how much room a repository has, as a proxy saw it."""
    row = session.get(Repository, repository)
    if row is not None and space is not None:
        row.size_bytes, row.free_bytes, row.measured_at = space.size_bytes, space.free_bytes, now


def add_point_of(session: Session, run: Run, vm_run: VmRun, now: float) -> None:
    """Record the point of a VM run from its own disk tasks, where the commit's own word was lost."""
    disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id).order_by(DiskTask.disk_key))
    point = Point(
        repository=run.repository,
        vm_id=vm_run.vm_id or "",
        point=vm_run.repository_run or "",
        vm_name=vm_run.name,
        job=run.job,
        created_at=now,
        disks=tuple(
            PointDisk(
                key=disk.disk_key,
                size_bytes=disk.result.report.size_bytes,
                stored_bytes=disk.result.report.stored_bytes,
            )
            for disk in disks
            if disk.result is not None
        ),
    )
    session.merge(point)


def replace_points(
    session: Session, repository: str, listed: RepositoryListResult, *, asked_at: float
) -> Rescanned:
    """Make the catalogue of a repository say what the repository said.

    Points made since `asked_at` may have come after the listing, and stay; so does, with its pin, what is there and
    can't be read: as damaged, until a proof says otherwise.
    """
    of_repository = select(Point.vm_id, Point.point, Point.created_at).where(Point.repository == repository)
    created = {(vm_id, point): created_at for vm_id, point, created_at in session.execute(of_repository)}
    known = created.keys()
    found = {(summary.vm.vm_id, summary.run): summary for summary in listed.points}
    for key, summary in found.items():
        if key not in known:
            session.add(_row(repository, summary))
    unreadable = known & set(listed.unreadable)
    for vm_id, point in unreadable:
        session.get_one(Point, (repository, vm_id, point)).damaged = True
    missing = known - found.keys() - unreadable
    gone = [key for key in missing if created[key] < asked_at - CLOCK_DIFFERENCE_S]
    for vm_id, point in gone:
        session.execute(
            delete(Point).where(Point.repository == repository, Point.vm_id == vm_id, Point.point == point)
        )
    declared = session.get(Repository, repository)
    if declared is not None:
        declared.repository_id = listed.repository_id
    return Rescanned(len(found), len(found.keys() - known), len(gone))


def _row(repository: str, summary: PointSummary) -> Point:
    return Point(
        repository=repository,
        vm_id=summary.vm.vm_id,
        point=summary.run,
        vm_name=summary.vm.name,
        job=summary.job,
        created_at=summary.created_at,
        disks=summary.disks,
    )
