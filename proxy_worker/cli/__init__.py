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
    "backup": ("proxy_worker.cli.backup", "Back up a disk as a restore point."),
    "restore": ("proxy_worker.cli.restore", "Restore a disk."),
    "restore-files": ("proxy_worker.cli.restore_files", "Bring files out of a restore point."),
    "serve-point": ("proxy_worker.cli.serve_point", "Serve a restore point's disks by NBD."),
    "boot-point": ("proxy_worker.cli.boot_point", "Start a VM from a restore point, as a proof."),
    "repository": ("proxy_worker.cli.repository", "Make, list, check and mend repositories."),
    "serve": ("proxy_worker.cli.serve", "Offer repositories to the fleet's proxies."),
    "warden": ("proxy_worker.cli.warden", "Keep objects of a hardened repository immutable."),
    "serve-points": ("proxy_worker.cli.serve_points", "Serve by NFS what VMs run from."),
    "run": ("proxy_worker.cli.run", "Serve the fleet as a proxy."),
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
