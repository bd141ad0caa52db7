"""`proxy-worker repository`: make, list, check and mend repositories, and hand out keys to them."""

from __future__ import annotations

from typing import Final

import typer

from proxy_worker.program.commands import commands

COMMANDS: Final = {
    "init": "proxy_worker.cli.repository_init",
    "list": "proxy_worker.cli.repository_list",
    "check": "proxy_worker.cli.repository_check",
    "prove": "proxy_worker.cli.repository_prove",
    "import": "proxy_worker.cli.repository_import",
    "export": "proxy_worker.cli.repository_export",
    "copy": "proxy_worker.cli.repository_copy",
    "reindex": "proxy_worker.cli.repository_reindex",
    "remove": "proxy_worker.cli.repository_remove",
    "collect": "proxy_worker.cli.repository_collect",
    "undelete": "proxy_worker.cli.repository_undelete",
    "keys": "proxy_worker.cli.repository_keys",
}

app = typer.Typer(
    cls=commands(COMMANDS),
    add_completion=False,
    no_args_is_help=True,
    help="Make, list, check and mend repositories.",
)


@app.callback()
def group() -> None:
    """Make, list, check and mend repositories."""
