"""The `scheduler` command: one module per noun, loaded when its command is asked for.

A module here offers `app`, a Typer application with one command or a group of them. It reads arguments, asks
the packages below, and prints; errors go up to `main`, which turns them into one message on stderr and an exit
code. Nouns: a record (`records`, what is known of a run, a restore, a proxy at one moment, as JSON prints it),
a view (how people see it), watching (looking again until it ends). It must not decide anything about work.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
import typer.main
from typer.core import TyperGroup

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.configuration import PATH_VARIABLE

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count signals."""


class LazyCommands(TyperGroup):
    """Imports a command's module when the command is used, so that each starts without the others' weight."""

    modules: ClassVar[dict[str, str]] = {
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
    }

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
        return list(self.modules)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
        module = self.modules.get(cmd_name)
        if module is None:
            return None
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="scheduler",
    cls=LazyCommands,
    help="Plan backups of VM disks and have a fleet of proxies carry them out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"scheduler {importlib.metadata.version('proxyfleet')}")
        raise typer.Exit


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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Plan backups of VM disks and have a fleet of proxies carry them out."""
    if config is not None:
        os.environ[PATH_VARIABLE] = str(config)  # where every command, and what it starts, looks for it


def main() -> None:
    """Run the command line; exits with the code of the error class (see `proxy_worker.contract.errors`)."""
    try:
        app(prog_name="scheduler")
    except ProxyfleetError as error:
        print(f"scheduler: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("scheduler: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away; nothing more can be said to it, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
