"""A page per command-line program, by walking its Typer application."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer
import typer.main

import proxy_worker.cli
import scheduler.cli
from generator import GENERATED

EXIT_CODES = "\nExit codes are explained with [the errors](errors.md); 130 means Ctrl-C.\n"


def scheduler_page() -> str:
    """The page of `scheduler`."""
    return _page("scheduler", scheduler.cli.app)


def proxy_worker_page() -> str:
    """The page of `proxy-worker`."""
    return _page("proxy-worker", proxy_worker.cli.app)


def _page(program: str, app: typer.Typer) -> str:
    command = typer.main.get_command(app)
    sections = [section for path, one in _walk((program,), command) for section in _section(path, one)]
    return f"{GENERATED}# `{program}`\n" + "\n".join(sections) + EXIT_CODES


def _walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            yield from _walk((*path, name), command.get_command(context, name))


def _section(path: tuple[str, ...], command: Any) -> list[str]:
    is_group = hasattr(command, "list_commands")
    depth = "#" * min(len(path), 3)
    lines = [] if len(path) == 1 else [f"{depth} `{' '.join(path)}`\n"]
    text, examples = _help(command.help or "")
    if text:
        lines.append(f"\n{text}\n" if len(path) == 1 else f"{text}\n")
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    if not is_group:
        usage = [*path, *(["[OPTIONS]"] if options else []), *(_argument(one) for one in arguments)]
        lines.append(f"```\n{' '.join(usage)}\n```\n")
    lines += _table("argument", [(f"`{_argument(one)}`", one) for one in arguments])
    lines += _table("option", [(_option(one), one) for one in options if "--help" not in one.opts])
    if examples:
        lines.append(f"```console\n{examples}\n```\n")
    return lines


def _help(text: str) -> tuple[str, str]:
    """The prose in flowing paragraphs, and the examples as they stand."""
    prose, _, examples = inspect.cleandoc(text).partition("\b\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n")]
    _, _, listed = examples.partition("Examples:\n")
    commands = inspect.cleandoc("\n" + listed) if listed else ""
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph), re.sub(
        r"(?m)^(?=scheduler|proxy-worker)", "$ ", commands
    )


def _table(noun: str, rows: Sequence[tuple[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {noun} | meaning |", "|---|---|"]
    lines += [f"| {name} | {_meaning(parameter)} |" for name, parameter in rows]
    return ["\n".join(lines) + "\n"]


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[]{}")
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in parameter.secondary_opts)
    is_flag = getattr(parameter, "is_flag", False) or parameter.name in {"install_completion", "show_completion"}
    if is_flag:
        return names
    metavar = _escaped(parameter.metavar or "") or " or ".join(_choices(parameter)) or parameter.name.upper()
    return f"{names} {metavar}"


def _choices(parameter: Any) -> list[str]:
    return [f"`{getattr(choice, 'value', choice)}`" for choice in getattr(parameter.type, "choices", ())]


def _meaning(parameter: Any) -> str:
    text = _escaped(" ".join((parameter.help or "").split()))
    default = parameter.default
    if parameter.required:
        return f"{text} Required." if parameter.param_type_name == "option" else text
    if default is None or callable(default) or isinstance(default, (bool, list, tuple)):
        return text
    return f"{text} Default: `{getattr(default, 'value', default)}`."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
