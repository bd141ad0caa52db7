"""What needs somebody's attention, as `scheduler status` shows it: one sentence each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.cli.printing import ago, duration, plural, size
from scheduler.cli.proxy_record import ProxyRecord
from scheduler.state.models import Delivery, DeliveryState, Job, Repository, Run, RunState

LITTLE_ROOM = 0.1
"""Of a repository's file system."""
_QUIET_DOWN_S = 60.0
"""A proxy that was heard of since is being restarted, perhaps."""


def alarms(session: Session, proxies: tuple[ProxyRecord, ...], now: float) -> tuple[str, ...]:
    """Jobs whose last run failed, proxies that are gone, repositories that fill up, notifications that wait."""
    return (
        *_failed_jobs(session),
        *_proxies(proxies),
        *_repositories(session),
        *_notifications(session, now),
    )


def _failed_jobs(session: Session) -> Iterator[str]:
    final = [state for state in RunState if state.final]
    newest = select(Run.job, func.max(Run.ended_at).label("ended_at")).where(Run.state.in_(final)).group_by(Run.job)
    last = newest.subquery()
    same = (Run.job == last.c.job) & (Run.ended_at == last.c.ended_at)
    bad = Run.state.in_((RunState.FAILED, RunState.PARTLY_FAILED))
    declared = select(Run).join(last, same).join(Job, Job.name == Run.job).where(bad).order_by(Run.job)
    for run in session.scalars(declared):
        yield f"job {run.job}: its last run {run.state.value} {ago(run.ended_at)}; `scheduler run report {run.id}`"


def _proxies(proxies: tuple[ProxyRecord, ...]) -> Iterator[str]:
    for proxy in proxies:
        age_s = proxy.heartbeat_age_seconds or 0.0
        if proxy.state == "down" and proxy.enabled and age_s > _QUIET_DOWN_S:
            yield f"proxy {proxy.name}: not heard of for {duration(age_s)}"
        elif proxy.note:
            yield f"proxy {proxy.name} is {proxy.state}: {proxy.note}"


def _repositories(session: Session) -> Iterator[str]:
    for one in session.scalars(select(Repository).order_by(Repository.name)):
        if one.size_bytes and one.free_bytes is not None and one.free_bytes / one.size_bytes < LITTLE_ROOM:
            yield f"repository {one.name}: {size(one.free_bytes)} of {size(one.size_bytes)} left"


def _notifications(session: Session, now: float) -> Iterator[str]:
    late = (Delivery.state == DeliveryState.WAITING) & (Delivery.tries > 0) & (Delivery.created_at < now)
    counted = select(Delivery.notification, func.count()).where(late).group_by(Delivery.notification)
    for name, count in session.execute(counted):
        yield f"notification {name} can't be told of {plural(count, 'run')}; `scheduler notification list`"
