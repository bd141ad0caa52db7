"""Commands that are loaded when asked for, and errors that end them in one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from proxy_worker.contract.errors import ProxyfleetError

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells count signals."""


def commands(modules: Mapping[str, str]) -> type[TyperGroup]:
    """A group whose commands are the `app` of these modules, so that each starts without the others' weight."""

    class Commands(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
            return list(modules)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
            if cmd_name not in modules:
                return None
            command = typer.main.get_command(importlib.import_module(modules[cmd_name]).app)
            command.name = cmd_name
            return command

    return Commands


def version_printer(program: str) -> Callable[[bool], None]:
    """The callback of `--version`."""

    def print_version(asked: bool) -> None:
        if asked:
            import importlib.metadata  # noqa: PLC0415 - slow to load, and wanted here only

            typer.echo(f"{program} {importlib.metadata.version('proxyfleet')}")
            raise typer.Exit

    return print_version


def run_program(app: typer.Typer, program: str) -> None:
    """Run the command line; exits with the code of the error class (see `proxy_worker.contract.errors`)."""
    try:
        try:
            app(prog_name=program)
        finally:
            sys.stdout.flush()  # here, where a reader that went away is no error, and not at interpreter exit
    except ProxyfleetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away; nothing more can be said to it, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
