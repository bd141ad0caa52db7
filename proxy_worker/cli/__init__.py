"""The `proxy-worker` command: one module per noun, loaded when its command is asked for.

A module here offers `app`, a Typer application with one command or a group of them. It reads arguments, calls
the packages below, and prints; errors go up to `main`, which turns them into one line on stderr and an exit
code. It must not know how anything is done.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from typing import Annotated, Any, ClassVar

import typer
import typer.main
from typer.core import TyperGroup

from proxy_worker.contract.errors import ProxyfleetError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count signals."""


class LazyCommands(TyperGroup):
    """Imports a command's module when the command is used, so that each starts without the others' weight."""

    modules: ClassVar[dict[str, str]] = {
        "backup": "proxy_worker.cli.backup",
        "restore": "proxy_worker.cli.restore",
        "repository": "proxy_worker.cli.repository",
        "run": "proxy_worker.cli.run",
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
    name="proxy-worker",
    cls=LazyCommands,
    help="Back up and restore VM disks: alone, or as a proxy of a fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"proxy-worker {importlib.metadata.version('proxyfleet')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Back up and restore VM disks: alone, or as a proxy of a fleet."""


def main() -> None:
    """Run the command line; exits with the code of the error class (see `proxy_worker.contract.errors`)."""
    try:
        app(prog_name="proxy-worker")
    except ProxyfleetError as error:
        print(f"proxy-worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("proxy-worker: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away; nothing more can be said to it, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
