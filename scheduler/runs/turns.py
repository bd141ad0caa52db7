"""What repositories have done to them by schedule: whose turn it is, and when it comes next."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import select

from scheduler.planning.schedule import Schedule, ScheduleError
from scheduler.runs.journal import Journal
from scheduler.state.asking import ask_for_upkeep
from scheduler.state.models import Repository, Request, RequestKind, WorkState

logger = logging.getLogger(__name__)

_NEVER: Final = 1e12


def next_turn(
    journal: Journal,
    repository: Repository,
    kind: RequestKind,
    *,
    cron: str,
    timezone: str,
    due_at: float | None,
) -> float:
    """Ask for upkeep that is due at `due_at`, unless it is at work still; when it is due next.

    None for `due_at` only finds that out.
    """
    try:
        coming = Schedule(cron, timezone).next_after(journal.now)
    except ScheduleError as error:
        logger.warning("repository %s: %s never begins by its schedule: %s", repository.name, kind.value, error)
        coming = None
    if due_at is not None and not _at_work(journal, repository, kind):
        ask_for_upkeep(journal.session, kind, repository.name, now=journal.now)
    return coming or _NEVER


def want_upkeep(journal: Journal, kind: RequestKind, repository: str) -> None:
    """Ask for upkeep of a repository, unless it isn't declared any more: it may have been removed meanwhile."""
    if journal.session.get(Repository, repository) is not None:
        ask_for_upkeep(journal.session, kind, repository, now=journal.now)


def _at_work(journal: Journal, repository: Repository, kind: RequestKind) -> bool:
    states = (WorkState.REQUESTED, WorkState.RUNNING, WorkState.WAITING)
    active = select(Request.id).where(
        Request.repository == repository.name, Request.kind == kind, Request.state.in_(states)
    )
    return journal.session.scalars(active.limit(1)).first() is not None
