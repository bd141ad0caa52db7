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
    "serve": ("scheduler.cli.serve", "Run the backup server, in the foreground."),
    "apply": ("scheduler.cli.apply", "Make the fleet exactly what a file says."),
    "export": ("scheduler.cli.export", "Print what is declared, as a fleet file."),
    "status": ("scheduler.cli.status", "Show what goes on now, and what needs attention."),
    "job": ("scheduler.cli.job", "Define jobs, start and stop them."),
    "run": ("scheduler.cli.run", "Look at runs, watch, cancel and retry them."),
    "point": ("scheduler.cli.point", "Look at, pin, remove and prove restore points."),
    "restore": ("scheduler.cli.restore", "Bring disks, VMs and files back."),
    "replica": ("scheduler.cli.replica", "Look at replicas, fail over to them and back."),
    "repository": ("scheduler.cli.repository", "Add repositories, rescan and check them."),
    "proxy": ("scheduler.cli.proxy", "Add proxies, drain, resume, upgrade and remove them."),
    "dispatch": ("scheduler.cli.dispatch", "Say which disks go when and where."),
    "traffic-rule": ("scheduler.cli.traffic_rule", "Limit what proxies send, over the whole fleet."),
    "redis": ("scheduler.cli.redis", "Configure the Redis that holds what runs now."),
    "pki": ("scheduler.cli.pki", "Make certificates for TLS, renew and revoke them."),
    "vcenter": ("scheduler.cli.vcenter", "Add vCenters and ESXi hosts, check and rescan them."),
    "vm": ("scheduler.cli.vm", "Look at VMs and how they are protected."),
    "server": ("scheduler.cli.server", "Back up the backup server itself, and restore it."),
    "notification": ("scheduler.cli.notification", "Tell servers and people how runs ended."),
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
