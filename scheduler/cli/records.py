"""What is known of a run at one moment: history from the database, progress from the ledger.

These are also the shapes that `--json` prints: sizes in bytes, rates in bytes per second, times as ISO 8601 in
UTC. Keys are added in later versions, never renamed or removed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.ledger import TaskState, TaskView
from scheduler.cli.live import Live
from scheduler.cli.printing import moment
from scheduler.dispatch.declared import DeclaredFleet
from scheduler.dispatch.pending import OpenTask
from scheduler.dispatch.reading import reading_of
from scheduler.reports.shown import Moment, Rate, Seconds, Shown
from scheduler.runs.waiting import waiting_scans, waiting_vms
from scheduler.state.models import DiskTask, DiskTaskState, LedgerTask, Run, RunState, VmRun, VmRunState, WorkState
from scheduler.state.run_kind import RunKind
from scheduler.state.vm_runs import vm_runs_of
from scheduler.vcenters.choice import Reading


class DiskRecord(Shown):
    """One disk of a run."""

    vm: str
    original: str | None
    """The restore point that is copied; None: it is no copy."""
    disk: str
    state: str
    """A `DiskTaskState`, or `running` or `paused` where the ledger says so."""
    proxy: str | None
    target_proxy: str | None
    """The proxy that writes its replica."""
    mode: str | None
    attempts: int
    reason: str | None
    """Why it failed, or what it waits for."""
    log: tuple[str, ...]
    """The last lines that the task wrote, where its processes died over it."""
    size_bytes: int | None
    processed_bytes: int
    read_bytes: int
    transferred_bytes: int
    """Sent to the repository, compressed. A repository is a folder of the proxy, so this is what was stored."""
    stored_bytes: int
    unchanged_bytes: int
    zero_bytes: int
    duplicate_bytes: int
    rate: Rate | None
    """Processed bytes per second: of the last seconds while it runs, afterwards on average."""
    bottleneck: str | None
    mode_reason: str | None
    full_read_reason: str | None
    parent: str | None
    started: Moment | None
    ended: Moment | None
    duration_seconds: Seconds | None

    @property
    def of(self) -> str:
        """Its VM, and the restore point where that is copied."""
        return self.vm if self.original is None else f"{self.vm} {self.original}"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {DiskTaskState.SUCCEEDED, DiskTaskState.FAILED, DiskTaskState.CANCELLED}

    @property
    def proxies(self) -> str | None:
        """Who has it: `near`, or `near → far` where a replica of it is sent."""
        if self.target_proxy in {None, self.proxy}:
            return self.proxy
        return f"{self.proxy or '-'} → {self.target_proxy}"

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the present rate."""
        if self.state != TaskState.RUNNING or not self.rate or self.size_bytes is None:
            return None
        return (self.size_bytes - self.processed_bytes) / self.rate


class VmRecord(Shown):
    """One VM of a run, or a name that no VM was found for."""

    vm: str
    vm_id: str | None
    state: str
    point: str | None
    """The restore point that it ended in."""
    original: str | None
    """The restore point that is copied; None: it is no copy."""
    reason: str | None
    warning: str | None


class RunRecord(Shown):
    """One run with all its disks."""

    run: str
    job: str
    state: str
    reason: str | None
    trigger: str
    kind: RunKind
    repository: str
    """Empty for a replication."""
    target: str | None
    """The datastore that a replication writes to; None for other runs, and for one that fails back."""
    copied_from: str | None
    """The repository that is copied from; None: it is no copy."""
    created: Moment
    started: Moment | None
    ended: Moment | None
    duration_seconds: Seconds | None
    size_bytes: int
    """Of all disks whose size is known; the figures that follow are sums over the disks too."""
    processed_bytes: int
    read_bytes: int
    transferred_bytes: int
    stored_bytes: int
    rate: Rate | None
    """Processed bytes per second of the run's duration."""
    bottleneck: str | None
    """The stage that set the pace of most of the disks' time."""
    vms: tuple[VmRecord, ...]
    disks: tuple[DiskRecord, ...]

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return RunState(self.state).final

    def disks_in(self, states: Iterable[str]) -> int:
        """How many disks are in one of `states`."""
        wanted = set(states)
        return sum(disk.state in wanted for disk in self.disks)


def run_record(session: Session, run: Run, live: Live, *, now: float) -> RunRecord:
    """What the database and, where it answers, the ledger say of a run at `now`."""
    vm_runs = vm_runs_of(session, run.id)
    by_id = {vm_run.id: vm_run for vm_run in vm_runs}
    places = {vm_run.id: place for place, vm_run in enumerate(vm_runs)}
    disks = session.scalars(select(DiskTask).where(DiskTask.run_id == run.id)).all()
    tasks, receivers = _ledger_tasks(session, run) if not run.state.final else ({}, {})
    records = [
        _disk_record(
            by_id[disk.vm_run_id], disk, tasks.get(disk.id, ()), live, receivers=receivers.get(disk.id, ()), now=now
        )
        for disk in sorted(disks, key=lambda disk: (places[disk.vm_run_id], disk.disk_key))
    ]
    duration = _span(run.started_at, run.ended_at, now)
    processed = sum(disk.processed_bytes for disk in records)
    freezing = any(vm_run.state in {VmRunState.SNAPSHOTTING, VmRunState.OPENING} for vm_run in vm_runs)
    unfrozen = waiting_vms(session, now, _reading(session, live)) if freezing else {}
    kind = RunKind.of(run)
    return RunRecord(
        run=run.id,
        job=run.job,
        state=run.state.value,
        reason=run.reason or _held_up(session, run, live, now),
        trigger=run.trigger.value,
        kind=kind,
        repository=run.repository,
        target=run.replica.datastore if run.replica is not None and kind is RunKind.REPLICATION else None,
        copied_from=run.copy_from.repository if run.copy_from is not None else None,
        created=run.created_at,
        started=run.started_at,
        ended=run.ended_at,
        duration_seconds=duration,
        size_bytes=sum(disk.size_bytes or 0 for disk in records),
        processed_bytes=processed,
        read_bytes=sum(disk.read_bytes for disk in records),
        transferred_bytes=sum(disk.transferred_bytes for disk in records),
        stored_bytes=sum(disk.stored_bytes for disk in records),
        rate=processed / duration if duration else None,
        bottleneck=_bottleneck(records),
        vms=tuple(
            _vm_record(vm_run, unfrozen.get(vm_run.id), makes_point=kind is not RunKind.FAILBACK)
            for vm_run in vm_runs
        ),
        disks=tuple(records),
    )


def _reading(session: Session, live: Live) -> Reading | None:
    """How far proxies are with what is frozen, where the ledger can be read."""
    if live.view is None:
        return None
    rows = session.scalars(select(LedgerTask).where(LedgerTask.state == WorkState.RUNNING))
    placements = Counter(OpenTask.of(row).placement for row in rows)
    return reading_of(placements, DeclaredFleet.load(session).fleet(live.view, ()))


def _ledger_tasks(session: Session, run: Run) -> tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]:
    """By disk task, the ids that it has in the ledger: of what reads it, and of what writes its replica."""
    by_disk: defaultdict[str, list[str]] = defaultdict(list)
    receivers: defaultdict[str, list[str]] = defaultdict(list)
    columns = select(LedgerTask.id, LedgerTask.kind, LedgerTask.disk_task_id)
    for task_id, kind, disk_id in session.execute(columns.join(DiskTask).where(DiskTask.run_id == run.id)):
        if disk_id is not None:
            (receivers if kind is TaskKind.DISK_RECEIVE else by_disk)[disk_id].append(task_id)
    return by_disk, receivers


def _held_up(session: Session, run: Run, live: Live, now: float) -> str | None:
    """What a run's work beside its disks waits for: finding VMs, or what is to be copied, and committing."""
    if run.state.final:
        return None
    scans = waiting_scans(session, now).values() if run.state is RunState.SCANNING else ()
    columns = select(LedgerTask.id, LedgerTask.state, LedgerTask.failure, LedgerTask.retry_at)
    of_run = columns.where(LedgerTask.run_id == run.id, LedgerTask.disk_task_id.is_(None))
    reasons = [
        _to_be_tried(failure, retry_at)
        if state is WorkState.WAITING and failure is not None and retry_at is not None
        else live.reason((task_id,))
        for task_id, state, failure, retry_at in session.execute(of_run)
        if not state.final
    ]
    return "; ".join(dict.fromkeys([*scans, *filter(None, reasons)])) or None


def _to_be_tried(failure: TaskFailure, at: float) -> str:
    said = str(failure)
    ended = said if said.endswith((".", "?")) else f"{said}."
    return f"{ended} Tried again at {moment(at).split()[-1]}."


def _vm_record(vm_run: VmRun, waits_for: str | None, *, makes_point: bool) -> VmRecord:
    return VmRecord(
        vm=vm_run.name,
        vm_id=vm_run.vm_id,
        state=vm_run.state.value,
        point=vm_run.repository_run if vm_run.state.value == RunState.SUCCEEDED and makes_point else None,
        original=_original(vm_run),
        reason=vm_run.reason or (waits_for and waits_for.removeprefix("waiting: ")),
        warning=vm_run.warning,
    )


def _disk_record(
    vm_run: VmRun, disk: DiskTask, task_ids: Sequence[str], live: Live, *, receivers: Sequence[str], now: float
) -> DiskRecord:
    result = disk.result or live.result(task_ids)
    report: DiskReport | None = result.report if result is not None else None
    task = live.task(task_ids) if not disk.state.final else None
    receiver = live.running(receivers)
    progress = task.progress if task is not None else None
    figures = report or progress
    mode = figures.mode if figures else None
    stored = figures.stored_bytes if figures else 0
    return DiskRecord(
        vm=vm_run.name,
        original=_original(vm_run),
        disk=disk.disk_key,
        state="running" if result is not None and disk.result is None else _state(disk, task),
        proxy=task.proxy if task is not None and task.proxy else disk.proxy,
        target_proxy=receiver.proxy if receiver is not None else disk.target_proxy,
        mode=mode.value if mode is not None else None,
        attempts=disk.attempts + (task.attempts if task is not None else 0),
        reason=_reason(disk, live.reason(task_ids), copied=vm_run.copy_of is not None),
        log=disk.failure.log if disk.failure is not None and disk.state is DiskTaskState.FAILED else (),
        size_bytes=figures.size_bytes if figures else disk.size_bytes,
        processed_bytes=report.size_bytes if report else progress.processed_bytes if progress else 0,
        read_bytes=figures.read_bytes if figures else 0,
        transferred_bytes=stored,
        stored_bytes=stored,
        unchanged_bytes=report.unchanged_bytes if report else 0,
        zero_bytes=report.zero_bytes if report else 0,
        duplicate_bytes=report.duplicate_bytes if report else 0,
        rate=_rate(report, task),
        bottleneck=report.bottleneck.value if report else None,
        mode_reason=report.mode_reason if report else None,
        full_read_reason=report.full_read_reason if report else None,
        parent=report.parent if report else None,
        started=disk.started_at,
        ended=disk.ended_at,
        duration_seconds=report.duration_seconds if report else _span(disk.started_at, disk.ended_at, now),
    )


def _rate(report: DiskReport | None, task: TaskView | None) -> float | None:
    if report is not None:
        return report.size_bytes / report.duration_seconds if report.duration_seconds > 0 else None
    running = task is not None and task.state is TaskState.RUNNING
    return task.progress.rate if running and task is not None and task.progress is not None else None


def _state(disk: DiskTask, task: TaskView | None) -> str:
    if disk.state is DiskTaskState.QUEUED and task is not None and task.state is TaskState.RUNNING:
        return "paused" if task.progress is not None and task.progress.paused else "running"
    return disk.state.value


def _original(vm_run: VmRun) -> str | None:
    return vm_run.copy_of.point if vm_run.copy_of is not None else None


def _reason(disk: DiskTask, of_ledger: str | None, *, copied: bool) -> str | None:
    if disk.state is DiskTaskState.SUCCEEDED:
        return None
    if copied and disk.state is DiskTaskState.WAITING and disk.retry_at is None:
        return "an older restore point of the VM is copied first"
    if disk.failure is not None and disk.state is not DiskTaskState.QUEUED:
        return str(disk.failure) if disk.retry_at is None else _to_be_tried(disk.failure, disk.retry_at)
    return of_ledger


def _bottleneck(disks: Iterable[DiskRecord]) -> str | None:
    milliseconds: Counter[str] = Counter()
    for disk in disks:
        if disk.bottleneck is not None:
            milliseconds[disk.bottleneck] += round(1000 * (disk.duration_seconds or 0)) + 1
    return milliseconds.most_common(1)[0][0] if milliseconds else None


def _span(start: float | None, end: float | None, now: float) -> float | None:
    return None if start is None else max(0.0, (end if end is not None else now) - start)
