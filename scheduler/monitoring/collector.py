"""The collector: reads the database and the ledger when somebody asks, and says which of them doesn't answer."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy_worker.contract.errors import LedgerError, ProxyfleetError
from proxy_worker.ledger import FleetView, Ledger
from scheduler.monitoring import database_metrics, ledger_metrics
from scheduler.monitoring.gauges import gauge
from scheduler.monitoring.meters import Meters
from scheduler.state.store import State

logger = logging.getLogger(__name__)


def registry_of(meters: Meters, state: State, ledger: Ledger) -> CollectorRegistry:
    """Everything that a scheduler offers: its meters, its fleet, and its own memory and processor time."""
    meters.registry.register(FleetCollector(meters, state, ledger))
    ProcessCollector(registry=meters.registry)
    return meters.registry


class FleetCollector(Collector):
    """Everything that isn't counted by the service itself. May be asked from several threads."""

    def __init__(self, meters: Meters, state: State, ledger: Ledger) -> None:
        self._meters = meters
        self._state = state
        self._ledger = ledger
        self._jobs = database_metrics.JobMetrics()
        self._repositories = database_metrics.RepositoryMetrics()
        self._one_at_a_time = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not need Redis or the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment; of what can't be read, that it can't."""
        with self._one_at_a_time:
            yield from self._collect()

    def _collect(self) -> Iterator[Metric]:
        version = importlib.metadata.version("proxyfleet")
        yield gauge("proxyfleet_scheduler_info", "Which scheduler leads.", ["version"], [((version,), 1)])
        view = self._view()
        yield gauge("proxyfleet_ledger_up", "1 while Redis answers.", [], [((), float(view is not None))])
        if view is not None:
            yield from ledger_metrics.fences_of(view)
            yield from ledger_metrics.proxies_of(view)
        found: list[Metric] = []
        try:
            found.extend(self._of_database(view))
        except ProxyfleetError as error:
            logger.warning("metrics without the database: %s", error)
            found = []
        yield gauge("proxyfleet_database_up", "1 while the database answers.", [], [((), float(bool(found)))])
        yield from found

    def _of_database(self, view: FleetView | None) -> Iterator[Metric]:
        with self._state.read() as session:
            yield from database_metrics.runs_of(session)
            yield from self._jobs.collect(session)
            yield from database_metrics.points_of(session)
            yield from self._repositories.collect(session)
            yield from database_metrics.notifications_of(session)
            yield from database_metrics.snapshots_of(session)
            yield from database_metrics.server_backup_of(session)
            if view is not None:
                opened = database_metrics.open_tasks(session)
                yield from ledger_metrics.tasks_of(view, opened)
                yield from ledger_metrics.waiting(view, opened, self._meters.waiting)

    def _view(self) -> FleetView | None:
        try:
            return self._ledger.view()
        except LedgerError:
            return None  # the service itself says why
