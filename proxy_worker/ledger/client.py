"""The ledger as its users see it."""

from __future__ import annotations

from proxy_worker.ledger.holding import ProxySide
from proxy_worker.ledger.scheduling import SchedulerSide
from proxy_worker.ledger.shares import ShareSide


class Ledger(SchedulerSide, ProxySide, ShareSide):
    """All sides over one connection; the scheduler and the proxies each use their own."""
