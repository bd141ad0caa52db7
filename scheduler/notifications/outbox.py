"""The outbox: what is still to be told, in the database, so that no crash loses any of it.

Of a run that has ended, deliveries are written in one transaction with the mark that they were. Each is sent, then
recorded: killed in between, it is sent again under the same id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from scheduler.notifications.letter import Letter
from scheduler.planning.addressees import EmailTarget, NotifyWhen, WebhookTarget
from scheduler.reports.run_report import Severity, run_report, severity_of
from scheduler.state.asking import new_id
from scheduler.state.models import Delivery, DeliveryState, Notification, Run, RunState, VmRun

FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 3600.0
"""Between two tries; each wait is three times as long as the one before, up to this."""
GIVE_UP_AFTER_S = 2 * 86400.0
_TOLD = {
    NotifyWhen.ALWAYS: frozenset(Severity),
    NotifyWhen.WARNING: frozenset({Severity.WARNING, Severity.FAILURE}),
    NotifyWhen.FAILURE: frozenset({Severity.FAILURE}),
}


@dataclass(frozen=True)
class Due:
    """A delivery whose time has come, and where it goes."""

    delivery: str
    notification: str
    run: str
    job: str
    webhook: WebhookTarget | None
    email: EmailTarget | None


def has_news(session: Session) -> bool:
    """Whether a run has ended of which nothing is in the outbox yet; cheap, takes no write lock."""
    return session.scalars(select(Run.id).where(*_unnoticed()).limit(1)).first() is not None


def post_news(session: Session, now: float) -> None:
    """Put into the outbox whatever is to be told of runs that have ended."""
    notifications = session.scalars(select(Notification).where(Notification.enabled)).all()
    for run in session.scalars(select(Run).where(*_unnoticed())).all():
        warned = select(VmRun.id).where(VmRun.run_id == run.id, VmRun.warning.is_not(None)).limit(1)
        severity = severity_of(run.state, warned=session.scalars(warned).first() is not None)
        for notification in notifications:
            if _concerns(notification, run, severity):
                session.add(
                    Delivery(
                        id=new_id(now),
                        notification=notification.name,
                        run_id=run.id,
                        created_at=now,
                        next_at=now,
                    )
                )
        run.notified = True


def due(session: Session, now: float, *, busy: Collection[str] = ()) -> list[Due]:
    """The oldest delivery of each notification whose time has come, but for those that are `busy`."""
    waiting = (
        select(Delivery, Notification, Run.job)
        .join(Notification, Notification.name == Delivery.notification)
        .join(Run, Run.id == Delivery.run_id)
        .where(Delivery.state == DeliveryState.WAITING, Delivery.next_at <= now, Delivery.notification.not_in(busy))
    )
    oldest: dict[str, Due] = {}
    for delivery, to, job in session.execute(waiting.order_by(Delivery.created_at)):
        oldest.setdefault(to.name, Due(delivery.id, to.name, delivery.run_id, job, to.webhook, to.email))
    return list(oldest.values())


def letter_of(session: Session, one: Due) -> Letter:
    """What a delivery tells."""
    return Letter(one.delivery, one.notification, run_report(session, session.get_one(Run, one.run)))


def record(session: Session, delivery_id: str, error: str | None, now: float) -> None:
    """Record how a try ended; a delivery whose notification was removed meanwhile is gone."""
    delivery = session.get(Delivery, delivery_id)
    if delivery is None:
        return
    delivery.tries += 1
    delivery.error = error
    if error is None:
        delivery.state, delivery.ended_at = DeliveryState.DELIVERED, now
    elif now - delivery.created_at > GIVE_UP_AFTER_S:
        delivery.state, delivery.ended_at = DeliveryState.GIVEN_UP, now
    else:
        delivery.next_at = now + min(LONGEST_WAIT_S, FIRST_WAIT_S * 3.0 ** (delivery.tries - 1))


def _unnoticed() -> tuple[ColumnElement[bool], ...]:
    final = [state for state in RunState if state.final]
    return Run.notified.is_(False), Run.state.in_(final)


def _concerns(notification: Notification, run: Run, severity: Severity) -> bool:
    return severity in _TOLD[notification.when] and any(fnmatchcase(run.job, one) for one in notification.jobs)
