"""`proxy-worker serve-points`: the NFS server of a proxy that VMs run from, which `run` starts by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve_points(
    *,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The proxy's proxy.toml.")],
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve by NFS the restore points that VMs run from, until Ctrl-C or SIGTERM.

    `proxy-worker run` starts this where proxy.toml has the section instant_restore, and again whenever it ends.
    Hosts wait meanwhile: what they have flushed is kept, what they haven't they write again.

    \b
    Examples:
      proxy-worker serve-points --config proxy.toml
    """
    from proxy_worker.config import load_configuration  # noqa: PLC0415 - loaded when it is wanted
    from proxy_worker.node.logs import log_to_stderr  # noqa: PLC0415 - the same
    from proxy_worker.node.point_server import serve_points as serve  # noqa: PLC0415 - the same
    from proxy_worker.node.served_points import NoInstantRestoreError  # noqa: PLC0415 - the same

    log_to_stderr(log_level)
    configuration = load_configuration(config, os.environ)
    log_to_stderr(log_level, configuration.log_format)
    if configuration.instant_restore is None:
        raise NoInstantRestoreError(str(config), why="it has no [instant_restore]", remedy="Add it.")
    serve(configuration, configuration.instant_restore)
