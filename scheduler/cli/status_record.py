"""What goes on everywhere at one moment: runs, restores, proxies, and why what waits is waiting."""

from __future__ import annotations

import time
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.ledger import TaskState
from scheduler.cli.alarms import alarms
from scheduler.cli.live import Live
from scheduler.cli.proxy_record import ProxyRecord, proxy_records
from scheduler.cli.records import RunRecord, run_record
from scheduler.cli.restore_record import RestoreRecord, restore_record
from scheduler.reports.shown import Moment, Shown
from scheduler.state.models import LedgerTask, Restore, Run, RunState, WorkState
from scheduler.state.serving import Servers


class TaskRecord(Shown):
    """A task that has not ended: disks, and work on repositories and inventories."""

    task: str
    """As people name it: `disk.backup web01 scsi0:0`."""
    state: str
    proxy: str | None
    lane: str | None
    attempts: int
    reason: str | None
    since: Moment


class WaitingRecord(Shown):
    """A reason, and how many tasks wait for it."""

    reason: str
    tasks: int


class StatusRecord(Shown):
    """Everything `scheduler status` shows; also what `--json` prints."""

    at: Moment
    serving: bool
    """Whether a `scheduler serve` is running."""
    scheduler: str | None = None
    """Which one, where several share a database."""
    standing_by: tuple[str, ...] = ()
    """Those that would take over from it."""
    ledger: str
    """`ok`, or why Redis can't be used."""
    runs: tuple[RunRecord, ...]
    """Those under way."""
    ended: tuple[RunRecord, ...]
    """The newest that have ended."""
    restores: tuple[RestoreRecord, ...]
    tasks: tuple[TaskRecord, ...]
    waiting: tuple[WaitingRecord, ...]
    proxies: tuple[ProxyRecord, ...]
    slots: int
    used: int
    warnings: tuple[str, ...] = ()
    """What needs somebody's attention: failed jobs, proxies that are gone, certificates that expire soon."""


ENDED_SHOWN = 3


def status_record(
    session: Session, live: Live, *, servers: Servers, problem: str | None, warnings: tuple[str, ...] = ()
) -> StatusRecord:
    """What the database and, where it answers, the ledger say now."""
    now = time.time()
    active_runs = [state for state in RunState if not state.final]
    active_work = [state for state in WorkState if not state.final]
    runs = session.scalars(select(Run).where(Run.state.in_(active_runs)).order_by(Run.created_at)).all()
    ended = session.scalars(
        select(Run).where(Run.state.not_in(active_runs)).order_by(Run.ended_at.desc()).limit(ENDED_SHOWN)
    ).all()
    restores = session.scalars(
        select(Restore).where(Restore.state.in_(active_work)).order_by(Restore.created_at)
    ).all()
    proxies = proxy_records(session, live.view)
    tasks = task_records(session, live)
    return StatusRecord(
        at=now,
        serving=servers.serving,
        scheduler=servers.leader,
        standing_by=servers.standing_by,
        ledger=problem or "ok",
        runs=tuple(run_record(session, run, live, now=now) for run in runs),
        ended=tuple(run_record(session, run, Live(), now=now) for run in ended),
        restores=tuple(restore_record(session, restore, live) for restore in restores),
        tasks=tasks,
        waiting=_waiting(tasks),
        proxies=tuple(proxies),
        slots=sum(proxy.slots or 0 for proxy in proxies if proxy.state == "up"),
        used=sum(proxy.used for proxy in proxies),
        warnings=(*warnings, *alarms(session, tuple(proxies), now)),
    )


def task_records(session: Session, live: Live) -> tuple[TaskRecord, ...]:
    """Every task that has not ended, those that run first; the ledger holds those that have been released."""
    if live.view is None:
        return ()
    held = sorted(
        live.view.tasks.values(), key=lambda task: (task.state is not TaskState.RUNNING, task.since, task.title)
    )
    records = [
        TaskRecord(
            task=task.title,
            state=task.state.value,
            proxy=task.proxy,
            lane=task.lane,
            attempts=task.attempts,
            reason=live.reason((task.task_id,)),
            since=task.since,
        )
        for task in held
    ]
    waiting = select(LedgerTask.id, LedgerTask.title, LedgerTask.created_at).where(
        LedgerTask.state == WorkState.RUNNING
    )
    records += [
        TaskRecord(
            task=title,
            state=TaskState.READY.value,
            proxy=None,
            lane=None,
            attempts=0,
            reason=live.reason((task_id,)),
            since=created_at,
        )
        for task_id, title, created_at in session.execute(waiting.order_by(LedgerTask.created_at, LedgerTask.title))
        if task_id not in live.view.tasks and task_id not in live.ended
    ]
    return tuple(records)


def _waiting(tasks: tuple[TaskRecord, ...]) -> tuple[WaitingRecord, ...]:
    reasons = Counter(task.reason for task in tasks if task.reason and task.state != TaskState.RUNNING)
    return tuple(WaitingRecord(reason=reason, tasks=count) for reason, count in reasons.most_common())
