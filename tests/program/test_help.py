"""Help as people read it in a terminal of 80 columns: an example for each command, and lists that say it all."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

PROGRAMS = ("scheduler", "proxy-worker")


def below(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Every command and group, each with its context, as `--help` is asked of it in a terminal of 80 columns."""
    yield command, context
    for name in getattr(command, "list_commands", lambda _: ())(context):
        inner = command.get_command(context, name)
        yield from below(inner, type(context)(inner, parent=context, info_name=name, terminal_width=80))


@pytest.fixture(params=PROGRAMS)
def helped(request: pytest.FixtureRequest) -> list[tuple[str, Any, str]]:
    """How each command of a program is called, the command, and its help."""
    app = importlib.import_module(f"{request.param.replace('-', '_')}.cli").app
    root = typer.main.get_command(app)
    context = root.make_context(request.param, [], resilient_parsing=True, terminal_width=80)
    return [(its.command_path, command, command.get_help(its)) for command, its in below(root, context)]


def test_every_command_has_an_example_and_no_frames(helped: list[tuple[str, Any, str]]) -> None:
    for path, command, text in helped:
        assert "\u2500" not in text, path
        assert hasattr(command, "list_commands") or "\n  Examples:\n" in text, path


def test_what_an_option_takes_has_a_name_and_not_a_type(helped: list[tuple[str, Any, str]]) -> None:
    for path, _, text in helped:
        assert re.findall(r"<(?:int|str|path|float)\b[^>]*>", text) == [], path


def test_what_a_command_does_is_said_in_its_group_without_being_cut(helped: list[tuple[str, Any, str]]) -> None:
    for path, command, text in helped:
        if hasattr(command, "list_commands"):
            cut = [line for line in text.partition("\nCommands:")[2].splitlines() if line.endswith("...")]
            assert cut == [], path
