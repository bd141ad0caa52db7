"""All that is recorded of a run, as a value: what pages, mails and webhooks are made of.

Sizes in bytes, rates in bytes per second, times in Unix seconds, in JSON as ISO 8601 in UTC. Keys are added in
later versions, never renamed or removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.figures import StageTimes
from proxy_worker.contract.outcome import AttemptOutcome
from proxy_worker.contract.requests import StoreRequests
from scheduler.reports.figures import moment, plural
from scheduler.reports.shown import Moment, Rate, Seconds, Shown
from scheduler.state.models import DiskTask, Run, RunState, VmRun
from scheduler.state.proven import proof_figures
from scheduler.state.run_kind import RunKind
from scheduler.state.vm_runs import vm_runs_of


class Severity(StrEnum):
    """How much a run's end asks for somebody's attention."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class AttemptReport(Shown):
    """One time that a proxy had a disk."""

    proxy: str
    started: Moment
    ended: Moment
    outcome: AttemptOutcome
    note: str
    rate: Rate | None
    """Of the disk that it got through, on average."""


class DiskReport(Shown):
    """One disk of a run."""

    vm: str
    disk: str
    state: str
    problem: str | None
    size_bytes: int | None
    read_bytes: int = 0
    zero_bytes: int = 0
    unchanged_bytes: int = 0
    duplicate_bytes: int = 0
    stored_bytes: int = 0
    mode: str | None = None
    mode_reason: str | None = None
    full_read_reason: str | None = None
    bottleneck: str | None = None
    requests: StoreRequests | None = None
    """Of the repository's object store, in the attempt that succeeded."""
    stages: StageTimes = StageTimes()
    """Seconds that each stage was busy, summed over its threads, in the attempt that succeeded."""
    queued: Moment | None = None
    waiting_seconds: Seconds = 0.0
    """From when it was queued to its last end, without any proxy having it."""
    moving_seconds: Seconds = 0.0
    """In the attempt that succeeded."""
    lost_seconds: Seconds = 0.0
    """In attempts that didn't."""
    attempts: tuple[AttemptReport, ...] = ()
    target_proxy: str | None = None
    """The proxy that wrote its replica; None for other runs."""


class VmReport(Shown):
    """One VM of a run, or a name that no VM was found for."""

    vm: str
    state: str
    point: str | None
    reason: str | None
    warning: str | None
    disks: int
    size_bytes: int
    read_bytes: int
    stored_bytes: int
    duration_seconds: Seconds | None
    freezing_seconds: Seconds | None
    """From its beginning until its disks were queued: its snapshot, mostly."""
    committing_seconds: Seconds | None
    """From the end of its last disk to its own: the restore point, mostly."""


class ProofReport(Shown):
    """How well the restore points of a run's repository are proven, now."""

    points: int
    unproven: int
    """Those of which not everything has been read yet."""
    damaged: int
    """Those that wait for repair."""
    oldest: Moment | None
    """Since when everything that the proven ones need has been read."""

    def __str__(self) -> str:
        since = f", since {moment(self.oldest)}" if self.oldest is not None else ""
        waiting = f"; {self.damaged} damaged" if self.damaged else ""
        return f"{self.points - self.unproven} of {plural(self.points, 'restore point')}{since}{waiting}"


class RunReport(Shown):
    """A whole run."""

    run: str
    job: str
    state: str
    severity: Severity
    reason: str | None
    trigger: str
    kind: RunKind = RunKind.BACKUP
    repository: str
    """Empty for a replication, and for a failback."""
    target: str | None = None
    """The datastore that a replication wrote to; None for other runs."""
    copied_from: str | None = None
    """The repository that was copied from; None: it is no copy."""
    created: Moment
    started: Moment | None
    ended: Moment | None
    duration_seconds: Seconds | None
    size_bytes: int
    """Of the disks that were stored; the figures that follow are sums over those, too."""
    read_bytes: int
    zero_bytes: int
    unchanged_bytes: int
    duplicate_bytes: int
    stored_bytes: int
    requests: StoreRequests | None = None
    """Of the repository's object store; None where it isn't in one."""
    rate: Rate | None
    bottleneck: str | None
    """The stage that set the pace of most of the disks' time."""
    proof: ProofReport | None = None
    """Of the repository; None where none was written to."""
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    vms: tuple[VmReport, ...]
    disks: tuple[DiskReport, ...]

    @property
    def way(self) -> str:
        """Where it all went, and a copy's from where."""
        if self.target is not None:
            return f"to datastore {self.target}"
        if not self.repository:
            return "to the originals"
        source = f"from repository {self.copied_from} " if self.copied_from is not None else ""
        return f"{source}to repository {self.repository}"

    def vms_in(self, state: str) -> int:
        """How many VMs ended so."""
        return sum(vm.state == state for vm in self.vms)


def run_report(session: Session, run: Run) -> RunReport:
    """What the database says of a run, best when it has ended."""
    vm_runs = vm_runs_of(session, run.id)
    names = {vm_run.id: vm_run.name for vm_run in vm_runs}
    places = {vm_run.id: place for place, vm_run in enumerate(vm_runs)}
    found = session.scalars(select(DiskTask).where(DiskTask.run_id == run.id)).all()
    tasks = sorted(found, key=lambda task: (places[task.vm_run_id], task.disk_key))
    disks = {task.id: _disk(names[task.vm_run_id], task) for task in tasks}
    by_vm = {vm_run.id: [task for task in tasks if task.vm_run_id == vm_run.id] for vm_run in vm_runs}
    kind = RunKind.of(run)
    vms = tuple(_vm(vm_run, by_vm[vm_run.id], kind) for vm_run in vm_runs)
    stored = [disks[task.id] for task in tasks if task.result is not None]
    size_bytes = sum(disk.size_bytes or 0 for disk in stored)
    duration = run.ended_at - run.started_at if run.ended_at is not None and run.started_at is not None else None
    warnings = tuple(f"{vm_run.name}: {vm_run.warning}" for vm_run in vm_runs if vm_run.warning)
    return RunReport(
        run=run.id,
        job=run.job,
        state=run.state.value,
        severity=severity_of(run.state, warned=bool(warnings)),
        reason=run.reason,
        trigger=run.trigger.value,
        kind=kind,
        repository=run.repository,
        target=run.replica.datastore if run.replica is not None and kind is RunKind.REPLICATION else None,
        copied_from=run.copy_from.repository if run.copy_from is not None else None,
        created=run.created_at,
        started=run.started_at,
        ended=run.ended_at,
        duration_seconds=duration,
        size_bytes=size_bytes,
        read_bytes=sum(disk.read_bytes for disk in stored),
        zero_bytes=sum(disk.zero_bytes for disk in stored),
        unchanged_bytes=sum(disk.unchanged_bytes for disk in stored),
        duplicate_bytes=sum(disk.duplicate_bytes for disk in stored),
        stored_bytes=sum(disk.stored_bytes for disk in stored),
        requests=_requests(stored),
        rate=size_bytes / duration if duration else None,
        bottleneck=_bottleneck(stored),
        proof=_proof(session, run.repository) if kind.to_repository else None,
        warnings=warnings,
        errors=tuple(_errors(vms, disks.values())),
        vms=vms,
        disks=tuple(disks.values()),
    )


def _proof(session: Session, repository: str) -> ProofReport:
    found = proof_figures(session, repository)
    return ProofReport(
        points=found.points, unproven=found.unproven, damaged=found.damaged, oldest=found.oldest_proof_at
    )


def severity_of(state: RunState, *, warned: bool) -> Severity:
    """How much the end of a run in `state` asks for attention."""
    if state in {RunState.FAILED, RunState.PARTLY_FAILED}:
        return Severity.FAILURE
    return Severity.WARNING if warned or state is RunState.CANCELLED else Severity.SUCCESS


def _disk(vm: str, task: DiskTask) -> DiskReport:
    report = task.result.report if task.result is not None else None
    attempts = tuple(_attempts(task))
    spent = {True: 0.0, False: 0.0}
    for attempt in attempts:
        spent[attempt.outcome is AttemptOutcome.DONE] += attempt.ended - attempt.started
    ended = max((attempt.ended for attempt in attempts), default=None)
    waited = ended - task.queued_at - sum(spent.values()) if ended is not None and task.queued_at is not None else 0
    known = DiskReport(
        vm=vm,
        disk=task.disk_key,
        state=task.state.value,
        problem=str(task.failure) if task.failure is not None and report is None else None,
        size_bytes=task.size_bytes,
        queued=task.queued_at,
        waiting_seconds=max(0.0, waited),
        moving_seconds=spent[True],
        lost_seconds=spent[False],
        attempts=attempts,
        target_proxy=task.target_proxy,
    )
    if report is None:
        return known
    return known.model_copy(
        update={
            "size_bytes": report.size_bytes,
            "read_bytes": report.read_bytes,
            "zero_bytes": report.zero_bytes,
            "unchanged_bytes": report.unchanged_bytes,
            "duplicate_bytes": report.duplicate_bytes,
            "stored_bytes": report.stored_bytes,
            "mode": report.mode.value,
            "mode_reason": report.mode_reason,
            "full_read_reason": report.full_read_reason,
            "bottleneck": report.bottleneck.value,
            "stages": report.stages,
            "requests": report.requests,
        }
    )


def _attempts(task: DiskTask) -> Iterable[AttemptReport]:
    for attempt in task.history:
        if attempt.ended_at is None or attempt.outcome is None:
            continue
        took = attempt.ended_at - attempt.started_at
        done = attempt.outcome is AttemptOutcome.DONE
        processed = task.size_bytes if done else attempt.processed_bytes
        yield AttemptReport(
            proxy=attempt.proxy,
            started=attempt.started_at,
            ended=attempt.ended_at,
            outcome=attempt.outcome,
            note=attempt.note,
            rate=processed / took if processed is not None and took > 0 else None,
        )


def _vm(vm_run: VmRun, tasks: list[DiskTask], kind: RunKind) -> VmReport:
    reports = [task.result.report for task in tasks if task.result is not None]
    queued = min((task.queued_at for task in tasks if task.queued_at is not None), default=None)
    moved = max((task.ended_at for task in tasks if task.ended_at is not None), default=None)
    succeeded = vm_run.state.value == RunState.SUCCEEDED
    return VmReport(
        vm=vm_run.name,
        state=vm_run.state.value,
        point=vm_run.repository_run if succeeded and kind is not RunKind.FAILBACK else None,
        reason=vm_run.reason,
        warning=vm_run.warning,
        disks=len(tasks),
        size_bytes=sum(report.size_bytes for report in reports),
        read_bytes=sum(report.read_bytes for report in reports),
        stored_bytes=sum(report.stored_bytes for report in reports),
        duration_seconds=_span(vm_run.started_at, vm_run.ended_at),
        freezing_seconds=_span(vm_run.started_at, queued),
        committing_seconds=_span(moved, vm_run.ended_at),
    )


def _errors(vms: Iterable[VmReport], disks: Iterable[DiskReport]) -> Iterable[str]:
    """Each failed VM's reason, and those of its disks."""
    problems = list(disks)
    for vm in vms:
        if vm.state != RunState.FAILED:
            continue
        yield f"{vm.vm}: {vm.reason or 'failed'}"
        yield from (
            f"{vm.vm} {disk.disk}: {disk.problem}" for disk in problems if disk.vm == vm.vm and disk.problem
        )


def _requests(disks: Iterable[DiskReport]) -> StoreRequests | None:
    asked = [disk.requests for disk in disks if disk.requests is not None]
    return sum(asked, StoreRequests()) if asked else None


def _bottleneck(disks: Iterable[DiskReport]) -> str | None:
    seconds: Counter[str] = Counter()
    for disk in disks:
        if disk.bottleneck is not None:
            seconds[disk.bottleneck] += round(1000 * disk.moving_seconds) + 1
    return seconds.most_common(1)[0][0] if seconds else None


def _span(start: float | None, end: float | None) -> float | None:
    return max(0.0, end - start) if start is not None and end is not None else None
