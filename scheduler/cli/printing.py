"""How commands print: plain tables for people, JSON for programs, and figures with their units.

Colours and live views are for terminals only; `NO_COLOR` and `TERM=dumb` are honoured by Rich. What goes to a
pipe or a file is never wrapped to a width that nobody has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from scheduler.reports.figures import ago, clock, compared, duration, iso, moment, plural, rate, size

__all__ = [
    "STYLES",
    "WIDTH_OF_A_PIPE",
    "Columns",
    "ago",
    "clock",
    "compared",
    "console",
    "duration",
    "facts",
    "fitted",
    "fitting",
    "iso",
    "moment",
    "note",
    "plural",
    "print_json",
    "rate",
    "show",
    "show_rows",
    "size",
    "state",
    "table",
]
WIDTH_OF_A_PIPE = 1_000
Columns = Mapping[str, Sequence[str | Text]]
"""A table by its columns: heading and cells."""

STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "up": "green",
    "failed": "bold red",
    "partly failed": "bold red",
    "cancelled": "yellow",
    "waiting": "yellow",
    "disabled": "yellow",
    "down": "red",
}
"""How states look; others have no style."""


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (standard output): as wide as the terminal, or never wrapping."""
    stream = stream if stream is not None else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_PIPE
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def show(renderable: RenderableType) -> None:
    """Print to standard output; the padding that tables put at the ends of lines is for terminals only."""
    out = console()
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def fitting(out: Console, candidates: Sequence[Table]) -> Table:
    """The first of these tables that is no wider than the terminal, or else the last."""
    for candidate in candidates[:-1]:
        if out.measure(candidate, options=out.options.update(max_width=WIDTH_OF_A_PIPE)).maximum <= out.width:
            return candidate
    return candidates[-1]


def show_rows(columns: Columns, *, right: Sequence[str] = (), spare: Sequence[str] = ()) -> None:
    """Print a table as `fitted` makes it for standard output."""
    show(fitted(columns, console(), right=right, spare=spare))


def fitted(columns: Columns, out: Console, *, right: Sequence[str] = (), spare: Sequence[str] = ()) -> Table:
    """A table given by its columns; in a terminal too narrow for it, those in `spare` are left out in turn."""
    candidates = [
        _table_of({name: cells for name, cells in columns.items() if name not in spare[:left_out]}, right)
        for left_out in range(len(spare) + 1)
    ]
    return fitting(out, candidates)


def _table_of(columns: Columns, right: Sequence[str]) -> Table:
    *_, last = columns
    made = table(*columns, right=right, keep=[name for name in columns if name != last])
    for row in zip(*columns.values(), strict=True):
        made.add_row(*row)
    return made


def print_json(value: Any) -> None:
    """Print a JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Say something beside the output proper, on standard error."""
    console(sys.stderr).print(Text(text))


def table(*columns: str, right: Sequence[str] = (), keep: Sequence[str] = ()) -> Table:
    """An empty table without lines; `right` are aligned so, `keep` are never broken over lines."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column in right or column in keep,
            overflow="fold",
        )
    return made


def facts(rows: Sequence[tuple[str, str | Text]]) -> Table:
    """Names and values below one another."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value if isinstance(value, Text) else Text(value))
    return made


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=STYLES.get(word, ""))
