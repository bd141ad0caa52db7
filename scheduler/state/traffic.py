"""Traffic rules, as an administrator declares them."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.names import TrafficKind
from scheduler.planning.traffic import TrafficRule
from scheduler.planning.window import Window
from scheduler.state.columns import Json, Record


class DeclaredTrafficRule(Record):
    """A row for each."""

    __tablename__ = "traffic_rules"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    source: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    target: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    limit: Mapped[str | None] = mapped_column(String(32), default=None)
    """As it was written, e.g. `80 Mbit/s`; None: it limits nothing."""
    encrypt: Mapped[bool | None] = mapped_column(default=None)
    """Whether it asks for encryption, or says that none is needed; None: neither."""
    window: Mapped[Window | None] = mapped_column(Json(Window), default=None)
    """When it holds; None: always."""
    exempt: Mapped[tuple[TrafficKind, ...]] = mapped_column(Json(tuple[TrafficKind, ...]))
    enabled: Mapped[bool] = mapped_column(default=True)

    def rule(self) -> TrafficRule:
        """What is declared."""
        return TrafficRule(
            name=self.name,
            source=self.source,
            target=self.target,
            limit=self.limit,
            encrypt=self.encrypt,
            window=self.window,
            exempt=self.exempt,
            enabled=self.enabled,
        )
