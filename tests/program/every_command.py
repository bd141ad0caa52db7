"""Run by itself, `every_command.py PROGRAM`: load what each of its commands loads, and print which there are.

A process of its own with nothing loaded before: whoever runs tests has most modules, and what is missing of an
installation doesn't show there. Each command's help is made, and each import within a function done, as the
commands come to it when they work.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LATE_IMPORT = re.compile(r"^ +(?:from (\S+) )?import (\S.*?)  # noqa: PLC0415", re.MULTILINE)
"""The linter asks for this of each."""


def commands_of(program: str) -> list[str]:
    """How each command is called, the program's own name first."""
    package = program.replace("-", "_")
    importlib.import_module(f"{package}.__main__")
    app = importlib.import_module(f"{package}.cli").app
    root = importlib.import_module("typer.main").get_command(app)
    return list(_called(root, root.make_context(program, [], resilient_parsing=True)))


def _called(command: Any, context: Any) -> Iterator[str]:
    with contextlib.redirect_stdout(io.StringIO()):
        command.get_help(context)
    yield context.command_path
    for name in getattr(command, "list_commands", lambda _: ())(context):
        inner = command.get_command(context, name)
        yield from _called(inner, type(context)(inner, parent=context, info_name=name))


def import_late(package: str) -> int:
    """Do every import that is within a function; how many there are."""
    folder = Path(importlib.import_module(package).__path__[0])
    found = {late for path in folder.rglob("*.py") for late in _LATE_IMPORT.findall(path.read_text())}
    for module, names in sorted(found):
        source = f"from {module} " if module and names != "(" else ""
        exec(f"{source}import {module if names == '(' else names}", {})  # noqa: S102 - as the program does
    return len(found)


if __name__ == "__main__":
    print(*commands_of(sys.argv[1]), sep="\n")
    assert import_late(sys.argv[1].replace("-", "_")) > 10
