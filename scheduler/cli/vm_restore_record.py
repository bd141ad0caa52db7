"""What is known of a VM's restore at one moment, and how people see it."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.ledger import TaskState
from proxy_worker.program.units import size
from scheduler.cli.live import Live
from scheduler.cli.printing import clock, duration, facts, plural, rate, state, table
from scheduler.reports.shown import Moment, Rate, Seconds, Shown
from scheduler.restores.tasks import task_id_of
from scheduler.state.models import (
    DiskTaskState,
    LedgerTask,
    RestoredDisk,
    VcenterStep,
    VmRestore,
    VmRestoreState,
)


class RestoredDiskRecord(Shown):
    """One disk that is, or was, written."""

    disk: str
    state: str
    proxy: str | None
    mode: str | None
    mode_reason: str | None
    attempts: int
    reason: str | None
    size_bytes: int
    processed_bytes: int
    read_bytes: int
    written_bytes: int
    unchanged_bytes: int
    """Not written, since it was known to be as in the restore point."""
    full_write_reason: str | None
    """Why all of an existing disk was written."""
    target: str | None
    rate: Rate | None
    duration_seconds: Seconds | None


class VmRestoreRecord(Shown):
    """A VM that is, or was, restored; also what `--json` prints."""

    restore: str
    state: str
    kind: str
    vm: str
    point: str
    repository: str
    vcenter: str
    target: str
    target_ref: str | None
    """The managed object id of the VM that was made or written."""
    reason: str | None
    warnings: tuple[str, ...]
    exit_code: int
    """Of a command that waits for it."""
    instant: bool
    """Whether the VM runs from its restore point until its disks are in production."""
    served_by: str | None
    """The proxy that it runs from."""
    moves: bool
    """Whether its disks are about to move."""
    disks: tuple[RestoredDiskRecord, ...]
    created: Moment
    ended: Moment | None
    duration_seconds: Seconds | None

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {word.value for word in VmRestoreState if word.final}

    @property
    def stays(self) -> bool:
        """Whether the VM runs from its restore point until somebody says otherwise."""
        return self.state == VmRestoreState.RUNNING.value and not self.moves


def vm_restore_record(session: Session, restore: VmRestore, live: Live) -> VmRestoreRecord:
    """What the database and, where it answers, the ledger say of a restore."""
    of_restore = select(RestoredDisk).where(RestoredDisk.restore_id == restore.id).order_by(RestoredDisk.disk_key)
    rows = session.scalars(of_restore).all()
    ended = restore.ended_at
    return VmRestoreRecord(
        restore=restore.id,
        state=restore.state.value,
        kind=restore.kind.value,
        vm=restore.vm_name,
        point=restore.point,
        repository=restore.repository,
        vcenter=restore.vcenter,
        target=restore.target_name,
        target_ref=restore.vm_ref,
        reason=_reason(session, restore, live),
        warnings=restore.warnings,
        exit_code=_exit_code(restore),
        instant=restore.wishes.instant,
        served_by=restore.served_by,
        moves=restore.move_requested,
        disks=tuple(_disk(disk, live) for disk in rows),
        created=restore.created_at,
        ended=ended,
        duration_seconds=ended - (restore.started_at or restore.created_at) if ended is not None else None,
    )


def vm_restore_line(record: VmRestoreRecord) -> Text:
    """One line that says how far a restore is."""
    what = "" if record.target == record.vm else f" to {record.target}"
    text = Text.assemble(f"{record.vm}{what} in {record.vcenter}: ", state(record.state))
    if record.state == VmRestoreState.WRITING.value:
        done = sum(disk.processed_bytes for disk in record.disks)
        whole = sum(disk.size_bytes for disk in record.disks)
        text.append(f", {100 * done // whole if whole else 100}% of {size(whole)}")
    if record.reason:
        text.append(f": {record.reason}")
    return text


def vm_restore_view(record: VmRestoreRecord, console: Console) -> RenderableType:
    """The restore as it stands, to be replaced a second later."""
    room = max(3, console.height - 6)
    return Group(vm_restore_line(record), _progress(record.disks[:room]))


def disk_line(disk: RestoredDiskRecord) -> str:
    """One disk as a line of a log."""
    words = [f"{disk.disk}: {disk.state}"]
    if disk.processed_bytes:
        words.append(f"{_percent(disk)} of {size(disk.size_bytes)}")
    if disk.rate is not None:
        words.append(rate(disk.rate))
    if disk.proxy is not None:
        words.append(f"on {disk.proxy}")
    line = ", ".join(words)
    return f"{line}: {disk.reason}" if disk.reason else line


def vm_restore_summary(record: VmRestoreRecord) -> RenderableType:
    """All figures of a restore."""
    rows: list[tuple[str, str | Text]] = [
        ("restore", record.restore),
        ("state", state(record.state)),
        ("VM", record.vm),
        ("point", f"{record.point} in {record.repository}"),
        ("restored to", f"{record.kind} {record.target} in {record.vcenter}"),
        ("written", size(sum(disk.written_bytes for disk in record.disks))),
        ("time", duration(record.duration_seconds)),
    ]
    if record.instant:
        rows.append(("runs from", f"{record.repository}, by proxy {record.served_by or '-'}"))
    if record.reason:
        rows.append(("reason", record.reason))
    remarks: list[RenderableType] = [Text(line, style="yellow") for line in record.warnings]
    remarks += [
        Text(f"{disk.disk}: written whole: {disk.full_write_reason}", style="yellow")
        for disk in record.disks
        if disk.full_write_reason
    ]
    return Group(facts(rows), "", _figures(record.disks), *(["", *remarks] if remarks else []))


def disks_in_short(record: VmRestoreRecord) -> str:
    """`scsi0:0`, or `3 disks`."""
    return record.disks[0].disk if len(record.disks) == 1 else plural(len(record.disks), "disk")


def _disk(disk: RestoredDisk, live: Live) -> RestoredDiskRecord:
    task_ids = (task_id_of(disk),)
    task = live.task(task_ids) if disk.state is DiskTaskState.QUEUED else None
    progress, report = task.progress if task is not None else None, disk.report
    running = task is not None and task.state is TaskState.RUNNING
    words = "paused" if progress is not None and progress.paused else TaskState.RUNNING.value
    failed = disk.failure if disk.state is not DiskTaskState.SUCCEEDED else None
    average = report.size_bytes / report.duration_seconds if report and report.duration_seconds else None
    figures = report or progress
    target = disk.target
    return RestoredDiskRecord(
        disk=disk.disk_key,
        state=words if running else "pending" if not disk.tries else disk.state.value,
        proxy=(task.proxy if task is not None else None) or disk.proxy,
        mode=report.mode.value if report else None,
        mode_reason=report.mode_reason if report else None,
        attempts=disk.attempts + (task.attempts if task is not None else 0),
        reason=str(failed) if failed is not None else None if disk.state.final else live.reason(task_ids),
        size_bytes=disk.size_bytes,
        processed_bytes=disk.size_bytes if report else progress.processed_bytes if progress else 0,
        read_bytes=figures.read_bytes if figures else 0,
        written_bytes=figures.stored_bytes if figures else 0,
        unchanged_bytes=report.unchanged_bytes if report else 0,
        full_write_reason=report.full_read_reason if report else disk.full_write_reason,
        target=target.vsphere.path if target is not None and target.vsphere is not None else None,
        rate=average if report else progress.rate if progress else None,
        duration_seconds=report.duration_seconds if report else None,
    )


def _reason(session: Session, restore: VmRestore, live: Live) -> str | None:
    if restore.failure is not None and restore.state is not VmRestoreState.SUCCEEDED:
        undoing = _step_failure(session, restore) if restore.state is VmRestoreState.UNDOING else None
        return f"{restore.failure}" + (f"; it isn't undone yet: {undoing}" if undoing is not None else "")
    if restore.state.final:
        return None
    failure = _step_failure(session, restore)
    if failure is not None:
        return str(failure)
    tasks = select(LedgerTask.id).where(LedgerTask.vm_restore_id == restore.id)
    return live.reason(session.scalars(tasks).all())


def _step_failure(session: Session, restore: VmRestore) -> TaskFailure | None:
    """Why its present step at the vCenter is tried again."""
    steps = select(VcenterStep).where(VcenterStep.subject == restore.id)
    return next((step.failure for step in session.scalars(steps) if step.failure is not None), None)


def _exit_code(restore: VmRestore) -> int:
    if restore.state is VmRestoreState.CANCELLED:
        return CancelledError.exit_code
    if restore.state is VmRestoreState.RUNNING and restore.failure is not None:
        return restore.failure.exit_code
    if restore.state is VmRestoreState.FAILED:
        return restore.failure.exit_code if restore.failure is not None else ProxyfleetError.exit_code
    return 0


def _progress(disks: tuple[RestoredDiskRecord, ...]) -> Table:
    made = table(
        "DISK", "STATE", "DONE", "SIZE", "RATE", "ETA", "PROXY",
        right=("DONE", "SIZE", "RATE", "ETA"), keep=("DISK", "STATE"),
    )  # fmt: skip
    for disk in disks:
        left = (disk.size_bytes - disk.processed_bytes) / disk.rate if disk.rate else None
        made.add_row(
            disk.disk,
            state(disk.state),
            _percent(disk),
            size(disk.size_bytes),
            rate(disk.rate),
            clock(left),
            Text(disk.proxy or "-"),
        )
    return made


def _figures(disks: tuple[RestoredDiskRecord, ...]) -> Table:
    made = table(
        "DISK", "STATE", "SIZE", "WRITTEN", "UNCHANGED", "TIME", "RATE", "MODE", "PROXY",
        right=("SIZE", "WRITTEN", "UNCHANGED", "TIME", "RATE"), keep=("DISK", "STATE", "MODE"),
    )  # fmt: skip
    for disk in disks:
        made.add_row(
            disk.disk,
            state(disk.state),
            size(disk.size_bytes),
            size(disk.written_bytes),
            size(disk.unchanged_bytes),
            duration(disk.duration_seconds),
            rate(disk.rate),
            disk.mode or "-",
            Text(disk.proxy or "-"),
        )
    return made


def _percent(disk: RestoredDiskRecord) -> str:
    return "100%" if disk.size_bytes == 0 else f"{100 * disk.processed_bytes // disk.size_bytes}%"
