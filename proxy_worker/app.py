"""The Celery app of a proxy: one prefork worker node, its settings, and what its signals mean to the ledger."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import signal
from typing import Any, Final

from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.apps.worker import Worker
from celery.signals import setup_logging, task_failure, worker_process_init, worker_ready, worker_shutting_down
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu.transport.redis import Transport
from redis.exceptions import ResponseError

from proxy_worker.contract.names import proxy_lane
from proxy_worker.ledger.broker import SETTINGS, broker_settings, lane_queue, site_options
from proxy_worker.node.bench import UPKEEP_PROCESSES, Bench
from proxy_worker.node.heart import Heart
from proxy_worker.node.task_log import forget_logs
from proxy_worker.tasks import enlist, task_and_number

log = logging.getLogger(__name__)

WORKER_SETTINGS: Final[dict[str, Any]] = {
    "task_acks_late": False,
    "task_track_started": True,
    "worker_pool": "prefork",
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_max_tasks_per_child": 1000,
    "worker_max_memory_per_child": 600 * 1024,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_send_task_events": True,
    "worker_proc_alive_timeout": 30.0,
    "worker_lost_wait": 0.5,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}
ANSWERED: Final = frozenset(
    {
        *("ping", "stats", "active", "reserved", "scheduled", "registered", "revoked", "active_queues", "conf"),
        "enable_events",
    }
)
"""Questions of Celery's remote control that a proxy answers; it obeys the ledger's signed tasks alone."""
_PR_SET_PDEATHSIG: Final = 1
_main_process = os.getpid()


def make_app(bench: Bench) -> Celery:
    """The app with all tasks; its processes share `bench`'s configuration and open their own connections."""
    _outlive_refusals()
    app = Celery("proxyfleet")
    configuration = bench.configuration
    app.conf.update(SETTINGS | WORKER_SETTINGS | broker_settings(configuration.redis_access()))
    app.conf.broker_transport_options = site_options(configuration.site)
    app.conf.task_queues = [lane_queue(proxy_lane(configuration.site, bench.identity.name))]
    enlist(app, bench)
    return app


class Node:
    """The running worker: started and ended here, subscribed as the heart says."""

    def __init__(self, app: Celery, bench: Bench) -> None:
        self._app = app
        self._bench = bench
        _only_answer()
        forget_logs(bench.configuration.state_dir)
        self._worker = Worker(
            app=app,
            hostname=f"proxy@{bench.identity.name}",
            concurrency=bench.configuration.max_concurrent_tasks + UPKEEP_PROCESSES,
            loglevel="INFO",
            quiet=True,
            without_mingle=True,
            without_gossip=True,
        )

    def run(self, heart: Heart) -> None:
        """Work until a signal, or `stop`, ends it; all tasks have ended or were handed back then.

        The heart beats from the moment that the pool exists, so that no process is forked while it holds a lock.
        """

        def ready(**_: object) -> None:
            heart.start()

        def shutting_down(**_: object) -> None:
            self._bench.draining.ask(self._bench.configuration.drain_timeout_s)
            heart.beat_now()

        def failed(exception: BaseException, args: Any, **_: object) -> None:
            named = task_and_number(args)
            if isinstance(exception, WorkerLostError) and named is not None:
                heart.process_died(*named, str(exception))

        worker_ready.connect(ready, weak=False)
        worker_shutting_down.connect(shutting_down, weak=False)
        task_failure.connect(failed, weak=False)
        self._worker.start()

    def stop(self) -> None:
        """Drain as at SIGTERM; may be called from another thread."""
        self._bench.draining.ask(self._bench.configuration.drain_timeout_s)
        worker_state.should_stop = 0

    def subscribe(self, lanes: frozenset[str]) -> None:
        """Consume from exactly these lanes; may be called from another thread, and again with the same."""
        consumer = self._worker.consumer
        if consumer is not None:
            consumer.call_soon(self._subscribe, lanes)

    def _subscribe(self, lanes: frozenset[str]) -> None:
        consumer, queues = self._worker.consumer, self._app.amqp.queues
        if consumer.task_consumer is None or self._bench.draining.draining:
            return
        consumed = set(queues.consume_from)
        for lane in sorted(lanes - consumed):
            if lane not in queues:
                queues.add(lane_queue(lane))
            consumer.add_task_queue(lane)
        for lane in sorted(consumed - lanes):
            consumer.cancel_task_queue(lane)


def _outlive_refusals() -> None:
    """Have a Redis that answers and refuses, e.g. writes during a failover, waited out like one that is away.

    Celery ends the worker for it, in order, so that nobody would start the proxy again.
    """
    if ResponseError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, ResponseError)


def _keep_logging(**_: object) -> None:
    """Leave logging as the command has set it up."""


def _only_answer() -> None:
    """Leave of Celery's remote control what Flower asks: whoever can publish in Redis must not command a proxy."""
    for name in set(Panel.data) - ANSWERED:
        Panel.data[name] = functools.partial(_refuse, name)


def _refuse(name: str, *_: object, **_arguments: object) -> dict[str, str]:
    log.warning("refused %s, which came through Celery's remote control", name)
    return {"error": "proxies take no commands this way"}


def _die_with_parent(**_: object) -> None:
    """A pool process whose proxy was killed must end at once: the next life waits for it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _main_process:
        os._exit(1)  # it died before the kernel was told


setup_logging.connect(_keep_logging)
worker_process_init.connect(_die_with_parent)
