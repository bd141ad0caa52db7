"""`proxy-worker warden`: what makes a hardened repository's objects immutable, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def warden(
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="The repository, by its name in gateway.toml.")
    ],
    *,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The gateway's gateway.toml.")],
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Make the objects of a hardened repository immutable as they come, and let go of them when their term is over.

    It is started as root and gives up all rights but one, CAP_LINUX_IMMUTABLE. Where that or the file system's flag
    is missing, it doesn't start, and neither does the gateway.

    \b
    Examples:
      proxy-worker warden main --config /etc/proxyfleet/gateway.toml
      systemctl enable --now proxyfleet-warden@main
    """
    from proxy_worker.cli.guarding import guard_until_stopped  # noqa: PLC0415 - loaded when it is wanted

    guard_until_stopped(config, repository, log_level=log_level)
