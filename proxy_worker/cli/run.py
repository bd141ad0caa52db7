"""`proxy-worker run`: a proxy of the fleet, until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.app import Node, make_app
from proxy_worker.config import load_configuration
from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import Ledger, ProxyNameTakenError
from proxy_worker.node.bench import Bench
from proxy_worker.node.detaching import Detacher
from proxy_worker.node.draining import Draining
from proxy_worker.node.exposing import metrics_exposed
from proxy_worker.node.heart import Heart
from proxy_worker.node.joining import describe, join
from proxy_worker.node.life import begin_life
from proxy_worker.node.logs import log_to_stderr
from proxy_worker.node.point_server import points_served
from proxy_worker.program.scratch import sweep_scratch

log = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def run(
    *,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The proxy's proxy.toml.")],
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the fleet: register, take disks as slots are free, report.

    SIGTERM or Ctrl-C: take nothing new, finish within `drain_timeout_s`, hand back the rest with checkpoints. A
    second one: hand back at once.

    \b
    Examples:
      proxy-worker run --config /etc/proxyfleet/proxy.toml
    """
    log_to_stderr(log_level)
    configuration = load_configuration(config, os.environ)
    log_to_stderr(log_level, configuration.log_format)
    sweep_scratch()
    with (
        begin_life(configuration.name, configuration.state_dir) as identity,
        Ledger(configuration.redis_access()) as ledger,
    ):
        registration = describe(configuration, identity)
        # A bench of its own: pool processes must not inherit sessions that are in use.
        detacher = Detacher(Bench(configuration, identity, Draining(), registration.vsphere).vsphere)
        detacher.start()
        join(ledger, detacher.limited(registration), identity)
        log.info(
            "proxy %s at site %s, %d slots", identity.name, configuration.site, registration.max_concurrent_tasks
        )
        bench = Bench(configuration, identity, Draining(), registration.vsphere)
        node = Node(make_app(bench), bench)
        lost: list[ProxyNameTakenError] = []

        def name_lost(error: ProxyNameTakenError) -> None:
            log.error("%s", error)
            lost.append(error)
            bench.draining.hand_back()
            node.stop()

        heart = Heart(
            ledger,
            detacher.limited(registration),
            identity,
            bench.draining,
            state_dir=configuration.state_dir,
            subscribe=node.subscribe,
            name_lost=name_lost,
        )
        detacher.watch(lambda: heart.register_anew(lambda: detacher.limited(registration)))
        gc.freeze()  # what was imported so far stays shared with the pool's processes
        with (
            points_served(configuration.instant_restore, config, log_level),
            metrics_exposed(configuration, bench, heart, registration),
        ):
            node.run(heart)
        detacher.stop()
        heart.stop()
        if lost:
            raise lost[0]
        try:
            ledger.depart(identity)
        except LedgerError as error:
            log.warning("left without a word to the ledger: %s", error)
    log.info("proxy %s has ended in order", configuration.name)
