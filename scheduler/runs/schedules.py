"""Starting jobs when their schedule says so."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.planning.schedule import Due, Schedule, ScheduleError
from scheduler.runs.journal import Journal
from scheduler.state.asking import active_run, ask_for_run
from scheduler.state.models import Job, RunTrigger

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    cron: str
    timezone: str
    next_at: float | None
    """None: never, or not a valid schedule."""

    def is_past(self, job: Job, now: float) -> bool:
        """Whether the job has to be looked at: it is due, or its schedule is another one."""
        if (self.cron, self.timezone) != (job.cron, job.timezone):
            return True
        return self.next_at is not None and (self.next_at <= now or job.scheduled_after is None)


class Timetable:
    """When each job is due next. Remembered between looks, since cron expressions are dear to evaluate."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def due_jobs(self, session: Session, now: float) -> list[str]:
        """Names of jobs to start, or whose mark has to be set, at `now` (Unix seconds)."""
        due: list[str] = []
        for job in session.scalars(select(Job)):
            if job.cron is None or not job.enabled:
                self._entries.pop(job.name, None)
                if job.scheduled_after is not None:
                    due.append(job.name)
                continue
            entry = self._entries.get(job.name)
            if entry is None or entry.is_past(job, now):
                due.append(job.name)
        return due

    def start(self, journal: Journal, names: list[str]) -> None:
        """Start those jobs of `due_jobs` that are due, and mark what has been dealt with."""
        for name in names:
            job = journal.session.get(Job, name)
            if job is not None:
                self._start(journal, job)

    def _start(self, journal: Journal, job: Job) -> None:
        if job.cron is None or not job.enabled:
            job.scheduled_after = None  # so that nothing is made up for when it is enabled again
            return
        entry = self._entries.get(job.name)
        changed = entry is not None and (entry.cron, entry.timezone) != (job.cron, job.timezone)
        try:
            schedule = Schedule(job.cron, job.timezone)
        except ScheduleError as error:
            logger.warning("job %s is never started by its schedule: %s", job.name, error)
            self._entries[job.name] = _Entry(job.cron, job.timezone, None)
            return
        self._entries[job.name] = _Entry(job.cron, job.timezone, schedule.next_after(journal.now))
        if job.scheduled_after is None or changed:
            job.scheduled_after = journal.now  # a new schedule makes up for nothing
        due = schedule.due(job.scheduled_after, journal.now)
        if due is not None:
            job.scheduled_after = journal.now
            self._start_run(journal, job.name, due)

    def _start_run(self, journal: Journal, name: str, due: Due) -> None:
        running = active_run(journal.session, name)
        if running is not None:
            logger.warning("job %s is due, but its run %s is still %s", name, running.id, running.state)
            return
        run = ask_for_run(journal.session, name, now=journal.now, trigger=RunTrigger.SCHEDULE)
        made_up = f", making up for {due.missed} earlier starts" if due.missed else ""
        logger.info("job %s is due: run %s%s", name, run.id, made_up, extra={"run": run.id, "job": name})
