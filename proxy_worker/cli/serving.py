"""What `proxy-worker serve` does."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Final

import typer

from proxy_worker.gateway.hardened import HardenedStore
from proxy_worker.gateway.service import Gateway, Offer
from proxy_worker.gateway.settings import OfferedRepository, load_settings
from proxy_worker.link.server import Limits, LinkServer
from proxy_worker.node.logs import log_to_stderr
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.warden.client import WardenClient
from proxy_worker.warden.rights import HardeningRefusedError, require_no_rights

log = logging.getLogger(__name__)

_GRACE_S: Final = 10.0


def serve_until_stopped(config: Path, *, log_level: str, as_json: bool) -> None:
    """Serve; raises `SettingsError`, `LinkCertificateError`, `ListenError`, `HardeningRefusedError`."""
    log_to_stderr(log_level)
    settings = load_settings(config, os.environ)
    log_to_stderr(log_level, settings.log_format)
    offers = {name: Offer(_store_of(name, one), one.proxies) for name, one in settings.repositories.items()}
    server = LinkServer(
        Gateway(offers).methods,
        settings.identity,
        host=settings.host,
        port=settings.port,
        limits=Limits(connections=settings.max_connections, calls=settings.max_calls),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    if as_json:
        typer.echo(json.dumps({"host": settings.host, "port": server.port, "repositories": sorted(offers)}))
    else:
        for name, one in settings.repositories.items():
            if one.hardened is not None:
                typer.echo(
                    f"{name} is hardened: nobody changes or deletes what it holds for {one.hardened.days:g} days"
                )
        typer.echo(f"{', '.join(sorted(offers))} at {settings.host}, port {server.port}; Ctrl-C or SIGTERM ends it")
    stop.wait()
    log.info("ending: calls under way have %.0f s", _GRACE_S)
    server.stop(_GRACE_S)


def _store_of(name: str, offered: OfferedRepository) -> LocalStore:
    """What is offered; of a hardened one everything is locked before this returns."""
    if offered.hardened is None:
        return LocalStore(offered.path)
    require_no_rights()
    warden = WardenClient(offered.hardened.run_dir / f"{name}.socket", offered.path)
    try:
        warden.connect()
    except ConnectionError as error:
        raise HardeningRefusedError(
            f"repository {name} is to be hardened, and isn't",
            why=str(error),
            remedy=f"Start `proxy-worker warden {name} --config …` first; it says what keeps it from that.",
        ) from error
    return HardenedStore(offered.path, warden)
