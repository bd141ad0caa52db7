"""The first steps of a copy job's run: ask the repositories what is missing, open a task for each disk of that."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from proxy_worker.contract.copying import CopyPlanResult, CopyState, PlannedCopy
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.subjects import DiskAddress
from scheduler.planning.copies import (
    CopyTerms,
    KnownPoint,
    PointChoice,
    Wanted,
    kept_copies,
    nothing_matches,
    wanted_copies,
)
from scheduler.planning.retention import HeldPoint
from scheduler.runs.completion import settle_run
from scheduler.runs.copy_tasks import plan_task, source_of
from scheduler.runs.journal import Journal
from scheduler.runs.tasks import repository_of
from scheduler.runs.turns import want_upkeep
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Job,
    LedgerTask,
    Point,
    RequestKind,
    Run,
    RunState,
    VmRun,
    VmRunState,
    WorkState,
)

logger = logging.getLogger(__name__)
_LONGEST_NAME: Final = 255
_POINTS_AT_ONCE: Final = 500
"""In one question to the repositories, so that none grows large in Redis."""


def begin_copies(journal: Journal, run: Run, terms: CopyTerms) -> None:
    """Choose restore points by the catalogue, and ask the repositories about them. What failed before is chosen
    again, unless the target has it by now."""
    session = journal.session
    without_disks = ~select(DiskTask.id).where(DiskTask.vm_run_id == VmRun.id).exists()
    session.execute(delete(VmRun).where(VmRun.run_id == run.id, without_disks))
    try:
        source, target = source_of(session, terms), repository_of(session, run)
    except NoSuchRepositoryError as error:
        _fail(journal, run, str(error))
        return
    wanted = _wanted(session, run, terms, journal.now)
    number = _highest_number(session, run)
    for pattern in wanted.unknown:
        number += 1
        session.add(
            VmRun(
                id=f"{run.id}.{number}",
                run_id=run.id,
                name=pattern[:_LONGEST_NAME],
                state=VmRunState.FAILED,
                reason=nothing_matches(pattern, terms.repository),
                started_at=journal.now,
                ended_at=journal.now,
            )
        )
    for first in range(0, len(wanted.points), _POINTS_AT_ONCE):
        points = wanted.points[first : first + _POINTS_AT_ONCE]
        journal.open(plan_task(journal, run, points, source, target, number=first))
    if not wanted.points:
        _begin(journal, run, ())


def plan_copies(journal: Journal, run: Run) -> None:
    """SCANNING -> RUNNING, once the repositories have answered."""
    session = journal.session
    plans = session.scalars(
        select(LedgerTask).where(LedgerTask.run_id == run.id, LedgerTask.kind == TaskKind.COPY_PLAN)
    ).all()
    if any(not plan.state.final for plan in plans):
        return
    for plan in plans:
        journal.close(plan)
    if run.cancel_requested:
        run.state, run.ended_at, run.reason = RunState.CANCELLED, journal.now, "cancelled before it was planned"
        return
    failed = next((plan for plan in plans if plan.state is not WorkState.SUCCEEDED), None)
    if failed is not None:
        source = run.copy_from.repository if run.copy_from is not None else ""
        _fail(journal, run, f"repositories {source} and {run.repository} can't be compared: {failed.failure}")
        return
    _begin(
        journal,
        run,
        [one for plan in plans if isinstance(plan.result, CopyPlanResult) for one in plan.result.points],
    )


def _begin(journal: Journal, run: Run, planned: Iterable[PlannedCopy]) -> None:
    session = journal.session
    session.flush()
    number = _highest_number(session, run)
    present = session.scalars(select(VmRun).where(VmRun.run_id == run.id, VmRun.copy_of.is_not(None))).all()
    before = {(row.vm_id, row.copy_of.point): row for row in present if row.copy_of is not None}
    states: Counter[CopyState] = Counter()
    for one in planned:
        states[one.state] += 1
        vm_run = before.get((one.vm.vm_id, one.point))
        if vm_run is not None and vm_run.state is VmRunState.SUCCEEDED:
            continue
        if one.state in {CopyState.MISSING, CopyState.DAMAGED}:
            if vm_run is None:
                number += 1
                vm_run = VmRun(id=f"{run.id}.{number}", run_id=run.id, vm_id=one.vm.vm_id, attempt=0)
                session.add(vm_run)
            _hold(journal, run, vm_run, one)
    if states[CopyState.THERE]:  # the catalogue doesn't know: somebody else made them
        want_upkeep(journal, RequestKind.RESCAN, run.repository)
    run.state = RunState.RUNNING
    told = ", ".join(f"{count} {state}" for state, count in states.items()) or "nothing to copy"
    logger.info("run %s of job %s: %s", run.id, run.job, told, extra={"run": run.id, "job": run.job})
    settle_run(journal, run)


def _hold(journal: Journal, run: Run, vm_run: VmRun, planned: PlannedCopy) -> None:
    """Record what is to be copied; its disks are opened when it is its turn."""
    vm_run.name = planned.vm.name
    vm_run.attempt += 1
    vm_run.copy_of, vm_run.repository_run = planned.original, planned.run
    vm_run.started_at = journal.now
    vm_run.cancelled = False
    vm_run.reason = vm_run.warning = vm_run.ended_at = None
    if planned.state is CopyState.DAMAGED:
        vm_run.state, vm_run.reason, vm_run.ended_at = VmRunState.FAILED, planned.problem, journal.now
        return
    vm_run.state = VmRunState.RUNNING
    session = journal.session
    rows = {row.disk_key: row for row in session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id))}
    for disk in planned.disks:
        row = rows.get(disk.key)
        if row is None:
            row = DiskTask(
                id=f"{vm_run.id}.{disk.key}",
                vm_run_id=vm_run.id,
                run_id=run.id,
                disk_key=disk.key,
                address=DiskAddress(),
                attempts=0,
            )
            session.add(row)
        row.size_bytes = disk.size_bytes
        row.state, row.tries = DiskTaskState.WAITING, 1
        row.result = row.failure = row.checkpoint = row.ended_at = row.retry_at = None


def _wanted(session: Session, run: Run, terms: CopyTerms, now: float) -> Wanted:
    columns = select(
        Point.vm_id, Point.vm_name, Point.point, Point.job, Point.created_at, Point.pinned, Point.damaged
    )
    source = [
        KnownPoint(row.vm_id, row.vm_name, row.point, row.job, row.created_at)
        for row in session.execute(columns.where(Point.repository == terms.repository))
    ]
    there = session.execute(columns.where(Point.repository == run.repository)).all()
    wanted = wanted_copies(
        source,
        terms,
        run.vms,
        there=[(row.vm_id, row.point) for row in there],
        now=now,
    )
    job = session.get(Job, run.job)
    if terms.points is PointChoice.NEWEST or job is None:
        return wanted
    held: defaultdict[str, list[HeldPoint]] = defaultdict(list)
    for row in there:
        held[row.vm_id].append(
            HeldPoint(row.point, row.created_at, pinned=row.pinned, own=row.job == job.name, damaged=row.damaged)
        )
    missing: defaultdict[str, list[KnownPoint]] = defaultdict(list)
    for point in wanted.points:
        missing[point.vm_id].append(point)
    kept = [
        point
        for vm_id, points in missing.items()
        for point in kept_copies(points, held[vm_id], job.retention, now=now, timezone=job.timezone)
    ]
    return Wanted(tuple(kept), wanted.unknown)


def _highest_number(session: Session, run: Run) -> int:
    session.flush()
    ids = session.scalars(select(VmRun.id).where(VmRun.run_id == run.id))
    return max((int(vm_run_id.rpartition(".")[2]) for vm_run_id in ids), default=0)


def _fail(journal: Journal, run: Run, reason: str) -> None:
    run.state, run.ended_at, run.reason = RunState.FAILED, journal.now, reason
    logger.warning("run %s of job %s: %s", run.id, run.job, reason, extra={"run": run.id, "job": run.job})
