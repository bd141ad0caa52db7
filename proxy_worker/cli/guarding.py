"""What `proxy-worker warden` does."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.gateway.settings import load_settings
from proxy_worker.node.logs import log_to_stderr
from proxy_worker.warden.serving import Charge, serve

_DAY_S = 24 * 3600


class NotHardenedError(NotFoundError):
    """The gateway's settings have no hardened repository of that name."""


def guard_until_stopped(config: Path, repository: str, *, log_level: str) -> None:
    """Serve; raises `SettingsError`, `NotHardenedError`, `HardeningRefusedError`, `RegisterError`."""
    log_to_stderr(log_level)
    settings = load_settings(config, os.environ)
    log_to_stderr(log_level, settings.log_format)
    offered = settings.repositories.get(repository)
    if offered is None or offered.hardened is None:
        raise NotHardenedError(
            f"hardened repository {repository!r}",
            why=f"{config} has no [repositories.{repository}.hardened]",
            remedy="Write that table, with `days` in it.",
        )
    hardened = offered.hardened
    charge = Charge(
        root=offered.path,
        period_s=hardened.days * _DAY_S,
        socket=hardened.run_dir / f"{repository}.socket",
        state_dir=hardened.state_dir / repository,
        configuration=config,
    )
    serve(
        charge,
        ready=lambda: typer.echo(
            f"{repository} in {charge.root} is immutable for {hardened.days:g} days; Ctrl-C or SIGTERM ends this"
        ),
    )
