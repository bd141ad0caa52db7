"""How much of the outbox is in which state."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.state.models import Delivery, DeliveryState


def counts(session: Session, notification: str) -> Counter[DeliveryState]:
    """How many deliveries of a notification there are in each state."""
    of_it = select(Delivery.state, func.count()).where(Delivery.notification == notification)
    counted: Counter[DeliveryState] = Counter()
    for state, count in session.execute(of_it.group_by(Delivery.state)):
        counted[state] = count
    return counted
