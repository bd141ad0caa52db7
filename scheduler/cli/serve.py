"""`scheduler serve`: the service in the foreground, until it is told to stop."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from proxy_worker.contract.signing import encode_public_key
from proxy_worker.ledger import Ledger, StaleEpochError
from proxy_worker.ledger.broker import publish, publisher
from proxy_worker.program.exposition import exposed
from proxy_worker.program.logs import handler
from scheduler.configuration import PATH_VARIABLE, SchedulerConfiguration, load_configuration
from scheduler.local_proxy import LocalProxy
from scheduler.monitoring.collector import registry_of
from scheduler.notifications.postman import Postman
from scheduler.runs.handling import KINDS
from scheduler.runs.latencies import record_latencies, watched_datastores
from scheduler.server_backup.nightly import NightlyBackup
from scheduler.service import Service
from scheduler.signing import signing_key
from scheduler.state.leadership import Leadership
from scheduler.state.lock import only_scheduler
from scheduler.state.store import open_state, reach_state
from scheduler.vcenters.executor import Executor
from scheduler.vcenters.latency import LatencyWatch

app = typer.Typer(rich_markup_mode=None, add_completion=False)
logger = logging.getLogger(__name__)


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="scheduler.toml to use instead of the usual ones."),
    ] = None,
    no_local_proxy: Annotated[
        bool, typer.Option("--no-local-proxy", help="Do not run a proxy on this machine.")
    ] = False,
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = "info",
) -> None:
    """Run schedules, dispatch tasks to proxies, record what becomes of them; in the foreground.

    On PostgreSQL several may serve from one database: one leads, the others stand by and take over in 15 seconds.
    SIGTERM or Ctrl-C: stop, and let the local proxy finish or hand back its disks. A second one: at once.

    \b
    Examples:
      scheduler serve
      scheduler serve --config /etc/proxyfleet/scheduler.toml --no-local-proxy
    """
    if config is not None:
        os.environ[PATH_VARIABLE] = str(config)
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error", param_hint="--log-level")
    configuration = load_configuration()
    to_stderr = handler(configuration.log_format, "%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[to_stderr])
    logging.getLogger("scheduler").setLevel(level)
    stop, hurry = threading.Event(), threading.Event()
    _stop_on_signals(stop, hurry)
    _serve(configuration, stop, hurry, with_proxy=not no_local_proxy)


def _serve(
    configuration: SchedulerConfiguration, stop: threading.Event, hurry: threading.Event, *, with_proxy: bool
) -> None:
    database = configuration.database_access()
    anew = _BeginAnew(stop)
    with contextlib.ExitStack() as held:
        state = reach_state(database)
        if state.shared:
            leadership = Leadership(database, anew)
            if not leadership.wait_for_it(stop):
                return
            held.callback(leadership.resign)
            try:
                _lead(configuration, stop, hurry, anew, leadership, with_proxy=with_proxy)
            except StaleEpochError as error:
                logger.error("%s", error)  # noqa: TRY400 - no traceback: it is foreseen, and nobody's defect
                anew()
        else:
            held.enter_context(only_scheduler(state))
            _lead(configuration, stop, hurry, anew, None, with_proxy=with_proxy)


def _lead(
    configuration: SchedulerConfiguration,
    stop: threading.Event,
    hurry: threading.Event,
    anew: _BeginAnew,
    leadership: Leadership | None,
    *,
    with_proxy: bool,
) -> None:
    key = signing_key(configuration)
    access = configuration.redis_access()
    with Ledger(access) as ledger:
        state = open_state(configuration.database_access(), migrate=True)
        term = 0
        if leadership is not None:
            state.guard, term = leadership.guard, leadership.term
        broker = publisher(access)
        executor = Executor(KINDS, configuration.secrets_dir)
        service = Service(
            state,
            ledger,
            functools.partial(publish, broker),
            key,
            executor=executor,
            term=term,
            history_s=configuration.history_s,
        )
        latency = LatencyWatch(
            functools.partial(watched_datastores, state),
            functools.partial(record_latencies, state),
            configuration.secrets_dir,
        )
        service.attach()
        service.load()
        latency.start()
        if with_proxy and configuration.local_proxy.enabled:
            anew.local = LocalProxy(configuration, encode_public_key(key.public_key()))
        nightly = NightlyBackup(configuration.server_backup, state)

        def each_turn() -> None:
            nightly.watch()
            if anew.local is not None:
                anew.local.watch()

        logger.info("serving from %s", state.name)
        try:
            with (
                Postman(state, configuration.secrets_dir),
                Ledger(access) as looked_at,
                exposed(registry_of(service.meters, state, looked_at), configuration.metrics),
            ):
                service.serve(stop, each_turn)
        finally:
            logger.info("stopping")
            nightly.stop()
            latency.close()
            executor.close()
            broker.close()
            state.close()
            if leadership is not None:
                leadership.resign()  # its disks may be moved on while another scheduler leads
            if anew.local is not None:
                anew.local.stop(hurry)


class _BeginAnew:
    """What a scheduler does that doesn't lead any more: with all its threads gone at once, it stands by.

    One that was told to stop ends instead.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.local: LocalProxy | None = None
        self._stop = stop

    def __call__(self) -> None:
        if self.local is not None:
            self.local.tell_to_end()
        if self._stop.is_set():
            os._exit(0)  # called from any thread, of which SystemExit would end that one only
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very command again


def _stop_on_signals(stop: threading.Event, hurry: threading.Event) -> None:
    def note(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
