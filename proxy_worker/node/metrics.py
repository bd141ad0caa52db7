"""A proxy's own metrics, collected in its main process: its tally, what its pool works on, whether it is heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy_worker.contract.figures import Bottleneck
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.node.tally import FATES, MOVING, OUTCOMES, STAGES, Series, Tally


@dataclass(frozen=True)
class Pulse:
    """How the main process is."""

    ledger_up: bool
    draining: bool
    dead_processes: int
    """Pool processes that died over a task."""


class WorkerCollector(Collector):
    """Everything about this proxy; its name is what Prometheus calls the instance, and `proxyfleet_worker_info`."""

    def __init__(
        self,
        registration: ProxyRegistration,
        tally: Tally,
        working_on: Callable[[], Iterable[str]],
        pulse: Callable[[], Pulse],
    ) -> None:
        """`working_on` answers the kinds of the tasks at work."""
        self._registration = registration
        self._tally = tally
        self._working_on = working_on
        self._pulse = pulse

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        known, pulse = self._registration, self._pulse()
        info = GaugeMetricFamily(
            "proxyfleet_worker_info", "Which proxy this is.", labels=["proxy", "site", "version"]
        )
        info.add_metric([known.name, known.site, known.version], 1)
        yield info
        yield _plain("ledger_up", "1 while Redis hears this proxy.", pulse.ledger_up)
        yield _plain("draining", "1 while it finishes what it has and takes nothing new.", pulse.draining)
        yield _plain("slots", "Disks that it may move at once.", known.max_concurrent_tasks)
        running = GaugeMetricFamily("proxyfleet_worker_tasks_running", "Tasks at work, by kind.", labels=["kind"])
        counts = Counter(self._working_on())
        for kind in TaskKind:
            running.add_metric([kind.value], counts[kind.value])
        yield running
        dead = CounterMetricFamily("proxyfleet_worker_dead_processes", "Pool processes that died over a task.")
        dead.add_metric([], pulse.dead_processes)
        yield dead
        yield from self._counted()

    def _counted(self) -> Iterator[Metric]:
        tasks = [("tasks", kind, outcome) for kind in TaskKind for outcome in OUTCOMES]
        yield self._counter("tasks", "Tasks that have ended, by kind and how.", "outcome", tasks)
        moved = [("bytes", kind, fate) for kind in MOVING for fate in FATES]
        yield self._counter("bytes", "Bytes of disks, by what became of them.", "fate", moved)
        busy = [("seconds", kind, stage) for kind in MOVING for stage in STAGES]
        yield self._counter(
            "stage_seconds", "Seconds that the stages of ended disks were busy, over all threads.", "stage", busy
        )
        pace = [("bottleneck", kind, stage) for kind in MOVING for stage in Bottleneck]
        yield self._counter("bottleneck_disks", "Disks that ended, by what set their pace.", "bottleneck", pace)

    def _counter(self, name: str, text: str, label: str, series: Iterable[Series]) -> Metric:
        family = CounterMetricFamily(f"proxyfleet_worker_{name}", text, labels=["kind", label])
        for one in series:
            family.add_metric([str(one[1]), str(one[2])], self._tally.total(one))
        return family


def registry_of(collector: WorkerCollector) -> CollectorRegistry:
    """What is exposed: the collector's metrics, and memory and processor time of the main process."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _plain(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"proxyfleet_worker_{name}", text)
    family.add_metric([], float(value))
    return family
