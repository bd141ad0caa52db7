"""`scheduler serve`: the service in the foreground, until it is told to stop."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from proxy_worker.contract.signing import encode_public_key
from proxy_worker.ledger import Ledger
from proxy_worker.ledger.broker import publish, publisher
from scheduler.configuration import PATH_VARIABLE, SchedulerConfiguration, load_configuration
from scheduler.local_proxy import LocalProxy
from scheduler.runs.handling import KINDS
from scheduler.service import Service
from scheduler.signing import signing_key
from scheduler.state.lock import only_scheduler
from scheduler.state.store import open_state, reach_state
from scheduler.vcenters.executor import Executor

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
    logging.basicConfig(level=max(level, logging.WARNING), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("scheduler").setLevel(level)
    stop, hurry = threading.Event(), threading.Event()
    _stop_on_signals(stop, hurry)
    _serve(load_configuration(), stop, hurry, with_proxy=not no_local_proxy)


def _serve(
    configuration: SchedulerConfiguration, stop: threading.Event, hurry: threading.Event, *, with_proxy: bool
) -> None:
    key = signing_key(configuration)
    access = configuration.redis_access()
    with (
        only_scheduler(reach_state(configuration.database)),
        Ledger(access) as ledger,
    ):
        state = open_state(configuration.database, migrate=True)
        broker = publisher(access)
        executor = Executor(KINDS, configuration.secrets_dir)
        service = Service(state, ledger, functools.partial(publish, broker), key, executor=executor)
        service.attach()
        service.load()
        local = None
        if with_proxy and configuration.local_proxy.enabled:
            local = LocalProxy(configuration, encode_public_key(key.public_key()))
        logger.info("serving from %s", state.name)
        try:
            service.serve(stop, local.watch if local is not None else _nothing)
        finally:
            logger.info("stopping")
            if local is not None:
                local.stop(hurry)
            executor.close()
            broker.close()
            state.close()


def _nothing() -> None:
    """Stands for the local proxy's supervision where there is none."""


def _stop_on_signals(stop: threading.Event, hurry: threading.Event) -> None:
    def note(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
