"""How all jobs share the fleet: one row."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from scheduler.planning.window import Window
from scheduler.state.columns import Json, Record

FLEET = "fleet"


class DispatchSettings(Record):
    """What is declared for the whole fleet; without the row, everything has its default."""

    __tablename__ = "dispatch_settings"

    name: Mapped[str] = mapped_column(String(63), primary_key=True, default=FLEET)
    patience_seconds: Mapped[float] = mapped_column(default=60.0)
    window: Mapped[Window | None] = mapped_column(Json(Window), default=None)
    latency_stop_ms: Mapped[float] = mapped_column(default=20.0)
    latency_throttle_ms: Mapped[float] = mapped_column(default=30.0)
    preferred_networks: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[str, ...]), default=None)
    """Over which gateways are reached where they can be; None: none in particular."""
