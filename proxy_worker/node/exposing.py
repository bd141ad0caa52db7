"""Offering a proxy's metrics while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from celery.worker import state as worker_state

from proxy_worker.config import ProxyConfiguration
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.node.bench import Bench
from proxy_worker.node.heart import Heart
from proxy_worker.program.exposition import exposed


@contextmanager
def metrics_exposed(
    configuration: ProxyConfiguration, bench: Bench, heart: Heart, registration: ProxyRegistration
) -> Iterator[None]:
    """Offer metrics while the block runs, where proxy.toml says so; raises `ListenError`."""
    if configuration.metrics.listen is None:
        yield
        return
    from proxy_worker.node.metrics import Pulse, WorkerCollector, registry_of  # noqa: PLC0415 - not if nobody asks

    def pulse() -> Pulse:
        return Pulse(heart.heard, bench.draining.draining, heart.deaths)

    collector = WorkerCollector(registration, bench.tally, _kinds_at_work, pulse)
    with exposed(registry_of(collector), configuration.metrics):
        yield


def _kinds_at_work() -> Iterable[str]:
    """Of the tasks that the pool works on, as Celery keeps them in the main process."""
    return [request.name for request in worker_state.active_requests]
