"""`proxy-worker repository`: make, list, check and mend repositories, and hand out keys to them."""

from __future__ import annotations

from typing import Final

import typer

from proxy_worker.program.commands import commands

COMMANDS: Final = {
    "init": ("proxy_worker.cli.repository_init", "Make a repository."),
    "list": ("proxy_worker.cli.repository_list", "List the restore points."),
    "check": ("proxy_worker.cli.repository_check", "Read everything, and name what is damaged."),
    "prove": ("proxy_worker.cli.repository_prove", "Read what was read longest ago, and mend it."),
    "import": ("proxy_worker.cli.repository_import", "Make a restore point of images."),
    "export": ("proxy_worker.cli.repository_export", "Write a disk as an image."),
    "copy": ("proxy_worker.cli.repository_copy", "Copy restore points to another repository."),
    "reindex": ("proxy_worker.cli.repository_reindex", "Rebuild an index from the packs."),
    "remove": ("proxy_worker.cli.repository_remove", "Remove a restore point."),
    "collect": ("proxy_worker.cli.repository_collect", "Free what no restore point needs."),
    "undelete": ("proxy_worker.cli.repository_undelete", "Bring back what object lock kept."),
    "keys": ("proxy_worker.cli.repository_keys", "Passphrases, and the keys that proxies hold."),
}

app = typer.Typer(
    cls=commands(COMMANDS),
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Make, list, check and mend repositories.",
)


@app.callback()
def group() -> None:
    """Make, list, check and mend repositories."""
