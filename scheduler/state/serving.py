"""Which schedulers serve from the database, where several may: on PostgreSQL, one leads and others stand by."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from scheduler.state.columns import Record


@dataclass(frozen=True)
class Servers:
    """Who serves from a database now."""

    serving: bool
    leader: str | None = None
    """Who that is, where several share the database."""
    standing_by: tuple[str, ...] = ()


class SchedulerProcess(Record):
    """A `scheduler serve`. The one with the highest term leads, for one lease after it was last seen."""

    __tablename__ = "schedulers"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Of one start of the process."""
    name: Mapped[str] = mapped_column(String(255))
    """What people call it: `process 12 on host`."""
    term: Mapped[int | None] = mapped_column(default=None)
    """Higher than that of all who led before; None: it stands by."""
    seen_at: Mapped[float]
    """When it last said that it lives, by the database server's clock, in Unix seconds; 0: it has resigned."""
