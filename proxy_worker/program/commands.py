"""Commands that are loaded when asked for, and errors that end them in one line."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import typer
import typer.main
from typer._click.shell_completion import CompletionItem
from typer.core import TyperGroup

from proxy_worker.contract.errors import ProxyfleetError, TargetError
from proxy_worker.program.interrupts import end_at_interrupts, raise_at_interrupts

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells count signals."""


def commands(modules: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group whose commands are the `app` of modules, each with what it does in a few words.

    One starts without the others' weight; listing them, or completing their names, loads none.
    """

    class Commands(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
            return list(modules)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
            if cmd_name not in modules:
                return None
            module, summary = modules[cmd_name]
            command = typer.main.get_command(importlib.import_module(module).app)
            command.name, command.short_help = cmd_name, summary
            return command

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the framework's signature
            with formatter.section("Commands"):
                formatter.write_dl([(name, summary) for name, (_, summary) in modules.items()])

        def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
            named = [
                CompletionItem(name, help=summary)
                for name, (_, summary) in modules.items()
                if name.startswith(incomplete)
            ]
            return named or super().shell_complete(ctx, incomplete)

    return Commands


def version_printer(program: str) -> Callable[[bool], None]:
    """The callback of `--version`."""

    def print_version(asked: bool) -> None:
        if asked:
            import importlib.metadata  # noqa: PLC0415 - slow to load, and wanted here only

            typer.echo(f"{program} {importlib.metadata.version('proxyfleet')}")
            raise typer.Exit

    return print_version


class OutputError(TargetError):
    """What a command prints can't be written where its standard output leads."""


def run_program(app: typer.Typer, program: str) -> None:
    """Run the command line; exits with the code of the error class (see `proxy_worker.contract.errors`)."""
    raise_at_interrupts()
    sys.stdout = _named_output(sys.stdout)
    code = _ended(program, lambda: app(prog_name=program))
    # Here, where a reader that went away is no error, and not at interpreter exit.
    flushed = _ended(program, sys.stdout.flush)
    gc.freeze()  # it goes with the process: searching it for cycles first takes some 30 ms
    sys.exit(code or flushed)


def _ended(program: str, step: Callable[[], object]) -> int | str | None:
    """Take a step; its exit code, what ended it early having been said."""
    try:
        step()
    except SystemExit as ended:
        return ended.code
    except ProxyfleetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        end_at_interrupts()  # a second one isn't waited for
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # its reader went away; nothing more can be said to it
        return 1
    return 0


class _NamedOutput(io.FileIO):
    """Standard output, with errors that say so: a command may fail at many files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            _drop_output()
            raise OutputError(
                "standard output", why=error.strerror or str(error), remedy="Send it where there is room."
            ) from error


def _named_output(stdout: TextIO | None) -> TextIO:
    if stdout is None:  # closed by whoever started this
        return Path(os.devnull).open("w")
    try:
        descriptor = stdout.fileno()
    except io.UnsupportedOperation:
        return stdout  # of whoever runs this within a program of their own
    return io.TextIOWrapper(
        io.BufferedWriter(_NamedOutput(descriptor, "w", closefd=False)),
        encoding=stdout.encoding,
        errors=stdout.errors,
        line_buffering=stdout.isatty(),
    )


def _drop_output() -> None:
    """Let what is still buffered go nowhere: writing it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
