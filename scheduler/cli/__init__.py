"""The `scheduler` command: one module per noun, loaded when its command is asked for.

A module here offers `app`, a Typer application with one command or a group of them. It reads arguments, asks
the packages below, and prints; errors go up to `main`, which turns them into one message on stderr and an exit
code. Nouns: a record (`records`, what is known of a run, a restore, a proxy at one moment, as JSON prints it),
a view (how people see it), watching (looking again until it ends). It must not decide anything about work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from proxy_worker.program.commands import commands, run_program, version_printer
from scheduler.configuration import PATH_VARIABLE

COMMANDS: Final = {
    "serve": "scheduler.cli.serve",
    "apply": "scheduler.cli.apply",
    "export": "scheduler.cli.export",
    "status": "scheduler.cli.status",
    "job": "scheduler.cli.job",
    "run": "scheduler.cli.run",
    "point": "scheduler.cli.point",
    "restore": "scheduler.cli.restore",
    "repository": "scheduler.cli.repository",
    "proxy": "scheduler.cli.proxy",
    "dispatch": "scheduler.cli.dispatch",
    "traffic-rule": "scheduler.cli.traffic_rule",
    "redis": "scheduler.cli.redis",
    "pki": "scheduler.cli.pki",
    "vcenter": "scheduler.cli.vcenter",
    "vm": "scheduler.cli.vm",
    "server": "scheduler.cli.server",
    "notification": "scheduler.cli.notification",
}

PRINT_VERSION: Final = version_printer("scheduler")

app = typer.Typer(
    name="scheduler",
    cls=commands(COMMANDS),
    help="Plan backups of VM disks and have a fleet of proxies carry them out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help=f"scheduler.toml to use instead of ${PATH_VARIABLE}, ./scheduler.toml and "
            "/etc/proxyfleet/scheduler.toml.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=PRINT_VERSION, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Plan backups of VM disks and have a fleet of proxies carry them out."""
    if config is not None:
        os.environ[PATH_VARIABLE] = str(config)  # where every command, and what it starts, looks for it


def main() -> None:
    """Run the command line; see `proxy_worker.program.commands.run_program`."""
    run_program(app, "scheduler")
