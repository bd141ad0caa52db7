"""Giving up restore points after a run, and collecting repositories when their schedule says so.

What a run's job doesn't keep any more is asked for as requests, in the transaction that marks the run: killed
anywhere, it is done once. A request that fails is made anew after the next run, as long as the catalogue still
knows the point.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import PointDeleteResult
from scheduler.planning.retention import HeldPoint, Verdict, is_ahead, judge
from scheduler.runs.journal import Journal
from scheduler.runs.turns import next_turn
from scheduler.state.asking import ask_to_delete, points_in_use
from scheduler.state.models import (
    Job,
    LedgerTask,
    Point,
    Repository,
    Request,
    RequestKind,
    Run,
    RunState,
    VmRun,
    VmRunState,
    WorkState,
)

_HOUR_S: Final = 3600.0


def retention_is_due() -> ColumnElement[bool]:
    """Whether a run has ended whose job's policy hasn't been applied since."""
    ended = [state for state in RunState if state.final]
    return and_(Run.state.in_(ended), Run.retention_applied.is_(False))


def collection_is_due(now: float) -> ColumnElement[bool]:
    """Whether a repository is to be collected, or its next collection isn't known."""
    return and_(
        Repository.collect_cron.is_not(None), or_(Repository.collect_at.is_(None), Repository.collect_at <= now)
    )


def collection_is_overdue(now: float) -> ColumnElement[bool]:
    """Whether the hours of a repository's collection are over, which hasn't been told so."""
    running = and_(
        Request.state == WorkState.RUNNING, Request.kind == RequestKind.COLLECT, Request.summary.is_(None)
    )
    over = Request.created_at + Repository.collect_hours * _HOUR_S <= now
    return and_(running, Repository.name == Request.repository, over)


def apply_retention(journal: Journal) -> None:
    """Ask for the removal of what jobs don't keep, of each VM that their last run has backed up.

    What that has just made stays, however old the clock of its proxy says that it is.
    """
    session = journal.session
    for run in session.scalars(select(Run).where(retention_is_due())).all():
        run.retention_applied = True
        job = session.get(Job, run.job)
        if job is None or job.repository != run.repository:
            continue
        backed_up = select(VmRun.vm_id, VmRun.repository_run).where(
            VmRun.run_id == run.id, VmRun.state == VmRunState.SUCCEEDED
        )
        made = {(vm_id, point) for vm_id, point in session.execute(backed_up)}
        for vm_id in sorted({vm_id for vm_id, _ in made if vm_id}):
            for verdict in verdicts(session, job, vm_id, now=journal.now):
                if not verdict.kept and (vm_id, verdict.point.point) not in made:
                    point = session.get_one(Point, (job.repository, vm_id, verdict.point.point))
                    ask_to_delete(session, point, now=journal.now, reason=verdict.why)


def verdicts(session: Session, job: Job, vm_id: str, *, now: float, next_run: bool = False) -> list[Verdict]:
    """What becomes of a VM's points in the job's repository; with `next_run`, once it has made one more.

    Days count from the newest point, which has just been made, if that is sooner: by this machine's clock alone,
    set a year ahead, nearly all would be too old.
    """
    rows = session.scalars(select(Point).where(Point.repository == job.repository, Point.vm_id == vm_id)).all()
    used = points_in_use(session, job.repository) if job.repository is not None else {}
    held = [
        HeldPoint(
            row.point,
            row.created_at,
            pinned=row.pinned,
            own=row.job == job.name,
            used=(vm_id, row.point) in used,
            damaged=row.damaged,
        )
        for row in rows
    ]
    if next_run:
        known = (point.created_at for point in held if not is_ahead(point.created_at, now))
        held.append(HeldPoint("", max([now, *known])))
    newest = max((point.created_at for point in held if point.own), default=now)
    found = judge(held, job.retention, now=min(now, newest), timezone=job.timezone)
    return [verdict for verdict in found if verdict.point.point]


def collect_when_due(journal: Journal) -> None:
    """Ask for the collection of repositories whose time has come; one that is still at it is left alone."""
    for repository in journal.session.scalars(select(Repository).where(collection_is_due(journal.now))).all():
        repository.collect_at = next_turn(
            journal,
            repository,
            RequestKind.COLLECT,
            cron=repository.collect_cron or "",
            timezone=repository.collect_timezone,
            due_at=repository.collect_at,
        )


def end_overdue_collections(journal: Journal) -> None:
    """Stop collections whose hours are over; whatever they leave, the next one completes."""
    session = journal.session
    for request in session.scalars(select(Request).where(collection_is_overdue(journal.now))).all():
        request.summary = "its hours were over; the next one goes on"
        for row in session.scalars(select(LedgerTask).where(LedgerTask.request_id == request.id)).all():
            journal.cancel(row)


def forget_point(session: Session, request: Request, result: PointDeleteResult) -> None:
    """The catalogue forgets a point that is gone."""
    point = session.get(Point, (request.repository, request.vm_id, request.point))
    if point is not None:
        session.delete(point)
    request.summary = f"restore point {request.point} of {request.vm_name} " + (
        "removed" if result.found else "was not there"
    )
