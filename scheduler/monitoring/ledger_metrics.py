"""What the ledger says of tasks and proxies, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import FleetView, ProxyView, TaskState
from scheduler.monitoring.gauges import gauge
from scheduler.monitoring.waiting import WaitingKind, kind_of

_OPEN = (TaskState.READY, TaskState.RESERVED, TaskState.DISPATCHED, TaskState.RUNNING)


def tasks_of(view: FleetView, opened: Mapping[TaskKind, int]) -> Iterator[Metric]:
    """Tasks that haven't ended, by kind and state; those of disks even where there are none.

    `opened` says how many the database holds open: what the ledger doesn't hold yet is ready.
    """
    family = GaugeMetricFamily(
        "proxyfleet_tasks", "Tasks that have not ended, by kind and state.", labels=["kind", "state"]
    )
    counts = Counter((task.kind, task.state) for task in view.tasks.values())
    held = Counter(task.kind for task in view.tasks.values())
    for kind, count in opened.items():
        counts[kind, TaskState.READY] += max(0, count - held[kind])
    for state in _OPEN:
        for kind in {
            TaskKind.DISK_BACKUP,
            TaskKind.DISK_RESTORE,
            TaskKind.DISK_COPY,
            *(kind for kind, _ in counts),
        }:
            family.add_metric([kind.value, state.value], counts[kind, state])
    yield family


def fences_of(view: FleetView) -> Iterator[Metric]:
    """How often the ledger was rebuilt, and what it refused."""
    refused = CounterMetricFamily(
        "proxyfleet_refused_fences",
        "Times that a proxy was told that its fence holds no more, since Redis last lost its data.",
    )
    refused.add_metric([], view.refused_fences)
    yield refused
    epoch = GaugeMetricFamily("proxyfleet_ledger_epoch", "Raised each time that the ledger is rebuilt.")
    epoch.add_metric([], view.epoch or 0)
    yield epoch


def waiting(view: FleetView, opened: Mapping[TaskKind, int], left: Mapping[str, int]) -> Iterator[Metric]:
    """Tasks that wait, by what for; every kind is there, so that one that begins is seen to.

    `opened` as `tasks_of` takes it; `left` says how many the scheduler didn't release, by reason.
    """
    family = GaugeMetricFamily(
        "proxyfleet_tasks_waiting", "Tasks that wait, by what they wait for.", labels=["reason"]
    )
    counts: Counter[WaitingKind] = Counter()
    for reason, count in left.items():
        counts[kind_of(reason)] += count
    counts[WaitingKind.PICK_UP] += sum(task.state is TaskState.DISPATCHED for task in view.tasks.values())
    if view.quiet_s > 0:  # all that is released is refused
        in_flight = sum(task.kind.takes_slot and task.state is not TaskState.READY for task in view.tasks.values())
        disks = sum(count for kind, count in opened.items() if kind.takes_slot)
        counts = Counter({WaitingKind.QUIET: max(0, disks - in_flight)})
    for kind in WaitingKind:
        family.add_metric([kind.value], counts[kind])
    yield family


def proxies_of(view: FleetView) -> Iterator[Metric]:
    """Every proxy that has registered."""
    rates: Counter[str] = Counter()
    for task in view.tasks.values():
        if task.state is TaskState.RUNNING and task.progress is not None and task.proxy is not None:
            rates[task.proxy] += round(task.progress.rate)
    labels = ["proxy", "site"]
    for name, text, value in _OF_A_PROXY:
        samples = [((proxy.name, proxy.registration.site), value(proxy)) for proxy in view.proxies.values()]
        yield gauge(name, text, labels, samples)
    yield gauge(
        "proxyfleet_proxy_rate_bytes_per_second",
        "How fast a proxy gets through disks, over the last seconds.",
        labels,
        [((proxy.name, proxy.registration.site), rates[proxy.name]) for proxy in view.proxies.values()],
    )
    lost = CounterMetricFamily(
        "proxyfleet_proxy_lost_leases",
        "Tasks given up without a word from their proxy, since Redis last lost its data.",
        labels=labels,
    )
    for proxy in view.proxies.values():
        lost.add_metric([proxy.name, proxy.registration.site], proxy.lost_leases)
    yield lost


_OF_A_PROXY: tuple[tuple[str, str, Callable[[ProxyView], float]], ...] = (
    ("proxyfleet_proxy_up", "1 while a proxy's heartbeat is recent.", lambda proxy: proxy.live),
    (
        "proxyfleet_proxy_accepting",
        "1 while a proxy is up, enabled, and not draining.",
        lambda proxy: proxy.live and proxy.orders.enabled and not proxy.draining,
    ),
    (
        "proxyfleet_proxy_slots",
        "Disks that a proxy may move at once; 0 while it is away.",
        lambda proxy: proxy.slots if proxy.live else 0,
    ),
    (
        "proxyfleet_proxy_slots_used",
        "Slots of a proxy that are taken or reserved.",
        lambda proxy: proxy.slots_used,
    ),
    (
        "proxyfleet_proxy_heartbeat_age_seconds",
        "Seconds since a proxy was heard of.",
        lambda proxy: proxy.heartbeat_age_s,
    ),
)
