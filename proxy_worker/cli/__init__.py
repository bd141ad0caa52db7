"""The `proxy-worker` command: one module per noun, loaded when its command is asked for.

A module here offers `app`, a Typer application with one command or a group of them. It reads arguments, calls
the packages below, and prints; errors go up to `main`, which turns them into one line on stderr and an exit
code. It must not know how anything is done.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from proxy_worker.program.commands import commands, run_program, version_printer

COMMANDS: Final = {
    "backup": "proxy_worker.cli.backup",
    "restore": "proxy_worker.cli.restore",
    "restore-files": "proxy_worker.cli.restore_files",
    "serve-point": "proxy_worker.cli.serve_point",
    "boot-point": "proxy_worker.cli.boot_point",
    "repository": "proxy_worker.cli.repository",
    "serve": "proxy_worker.cli.serve",
    "warden": "proxy_worker.cli.warden",
    "serve-points": "proxy_worker.cli.serve_points",
    "run": "proxy_worker.cli.run",
}

PRINT_VERSION: Final = version_printer("proxy-worker")

app = typer.Typer(
    name="proxy-worker",
    cls=commands(COMMANDS),
    help="Back up and restore VM disks: alone, or as a proxy of a fleet.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=PRINT_VERSION, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Back up and restore VM disks: alone, or as a proxy of a fleet."""


def main() -> None:
    """Run the command line; see `proxy_worker.program.commands.run_program`."""
    run_program(app, "proxy-worker")
