"""What is known of a restore at one moment, and how people see it."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.ledger import TaskState
from proxy_worker.program.units import size
from scheduler.cli.live import Live
from scheduler.cli.printing import duration, facts, rate, state
from scheduler.reports.shown import Moment, Rate, Seconds, Shown
from scheduler.state.models import LedgerTask, Restore, WorkState


class RestoreRecord(Shown):
    """One disk that is, or was, written back; also what `--json` prints."""

    restore: str
    state: str
    vm: str
    disk: str
    point: str
    repository: str
    proxy: str
    path: str
    attempts: int
    reason: str | None
    exit_code: int
    """Of a command that waits for it."""
    size_bytes: int | None
    processed_bytes: int
    read_bytes: int
    written_bytes: int
    rate: Rate | None
    created: Moment
    ended: Moment | None
    duration_seconds: Seconds | None

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {word.value for word in WorkState if word.final}


def restore_record(session: Session, restore: Restore, live: Live) -> RestoreRecord:
    """What the database and, where it answers, the ledger say of a restore."""
    task_ids = session.scalars(select(LedgerTask.id).where(LedgerTask.restore_id == restore.id)).all()
    task = live.task(task_ids) if not restore.state.final else None
    progress = task.progress if task is not None else None
    report, failure = restore.report, restore.failure
    figures = report or progress
    running = live.running(task_ids) is not None
    failed = restore.failure is not None and restore.state is not WorkState.SUCCEEDED
    average = report.size_bytes / report.duration_seconds if report and report.duration_seconds else None
    return RestoreRecord(
        restore=restore.id,
        state=restore.state.value if not running or restore.state.final else TaskState.RUNNING.value,
        vm=restore.vm_name,
        disk=restore.disk_key,
        point=restore.point,
        repository=restore.repository,
        proxy=restore.proxy,
        path=restore.target_path,
        attempts=restore.attempts + (task.attempts if task is not None else 0),
        reason=str(failure) if failed else None if restore.state.final else live.reason(task_ids),
        exit_code=_exit_code(restore),
        size_bytes=figures.size_bytes if figures else None,
        processed_bytes=report.size_bytes if report else progress.processed_bytes if progress else 0,
        read_bytes=figures.read_bytes if figures else 0,
        written_bytes=figures.stored_bytes if figures else 0,
        rate=average if report else progress.rate if progress else None,
        created=restore.created_at,
        ended=restore.ended_at,
        duration_seconds=report.duration_seconds if report else None,
    )


def restore_line(record: RestoreRecord) -> Text:
    """One line that says how far a restore is."""
    text = Text.assemble(f"{record.vm} {record.disk} to {record.proxy}:{record.path}: ", state(record.state))
    if record.size_bytes:
        share = 100 * record.processed_bytes // record.size_bytes
        text.append(f", {share}% of {size(record.size_bytes)}, {rate(record.rate)}")
        if not record.final and record.rate:
            text.append(f", {duration((record.size_bytes - record.processed_bytes) / record.rate)} to go")
    if record.reason:
        text.append(f": {record.reason}")
    return text


def restore_summary(record: RestoreRecord) -> RenderableType:
    """All figures of a restore."""
    rows: list[tuple[str, str | Text]] = [
        ("restore", record.restore),
        ("state", state(record.state)),
        ("disk", f"{record.vm} {record.disk}"),
        ("point", f"{record.point} in {record.repository}"),
        ("written to" if record.state == WorkState.SUCCEEDED.value else "to", f"{record.path} on {record.proxy}"),
    ]
    if record.size_bytes is not None:
        rows += [
            ("size", size(record.size_bytes)),
            ("read", size(record.read_bytes)),
            ("written", size(record.written_bytes)),
            ("rate", rate(record.rate)),
            ("time", duration(record.duration_seconds)),
        ]
    if record.reason:
        rows.append(("reason", record.reason))
    return facts(rows)


def _exit_code(restore: Restore) -> int:
    if restore.state is WorkState.CANCELLED:
        return CancelledError.exit_code
    if restore.state is WorkState.FAILED:
        return restore.failure.exit_code if restore.failure is not None else ProxyfleetError.exit_code
    return 0
