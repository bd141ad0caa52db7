"""Who is told of runs' ends, and what is still to be told: the outbox that `scheduler serve` delivers from."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from scheduler.planning.addressees import EmailTarget, NotifyWhen, WebhookTarget
from scheduler.state.columns import Json, Record, choice, reference


class DeliveryState(StrEnum):
    """Where a delivery stands; the last two are final."""

    WAITING = "waiting"
    """To be sent at `next_at`."""
    DELIVERED = "delivered"
    GIVEN_UP = "given up"


class Notification(Record):
    """Whom to tell of which runs. Its secrets are files, by the names that the target gives."""

    __tablename__ = "notifications"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    when: Mapped[NotifyWhen] = mapped_column(choice(NotifyWhen), default=NotifyWhen.WARNING)
    jobs: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]), default=("*",))
    """Names of jobs, or shell patterns of them."""
    webhook: Mapped[WebhookTarget | None] = mapped_column(Json(WebhookTarget), default=None)
    email: Mapped[EmailTarget | None] = mapped_column(Json(EmailTarget), default=None)
    enabled: Mapped[bool] = mapped_column(default=True)


class Delivery(Record):
    """One run's end to be told to one addressee. Sent at least once: its id tells repetitions apart."""

    __tablename__ = "deliveries"
    __table_args__ = (Index(None, "state", "next_at"), Index(None, "notification", "created_at"))

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    notification: Mapped[str] = mapped_column(reference("notifications.name", owned=True))
    run_id: Mapped[str] = mapped_column(reference("runs.id", owned=True))
    state: Mapped[DeliveryState] = mapped_column(choice(DeliveryState), default=DeliveryState.WAITING)
    created_at: Mapped[float]
    next_at: Mapped[float]
    tries: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(default=None)
    """Why the last try failed."""
    ended_at: Mapped[float | None] = mapped_column(default=None)
