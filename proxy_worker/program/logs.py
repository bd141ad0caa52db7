"""Logs of both programs on stderr: lines for people, or one JSON object a line for machines that collect them.

A line can say what it is about in the fields of `ABOUT`: given with the call (`extra={"run": …}`), or for all that
a process does meanwhile (`about`), which suits a pool process, as it works on one task at a time. The fields are
described in `docs/monitoring.md`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

ABOUT: Final = ("run", "job", "vm", "disk", "point", "task", "proxy")
"""What a line may be about, in this order."""
_now_about: dict[str, str] = {}


class LogFormat(StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Have every line of this process, of all its threads, say `fields` while the block runs."""
    before = dict(_now_about)
    _now_about.update(fields)
    try:
        yield
    finally:
        _now_about.clear()
        _now_about.update(before)


def learn(**fields: str) -> None:
    """Add to what the lines are about until the innermost `about` ends."""
    _now_about.update(fields)


def about_of(record: logging.LogRecord) -> dict[str, str]:
    """What a line is about: what the call said, else what the process works on."""
    found = {field: getattr(record, field, None) or _now_about.get(field) for field in ABOUT}
    return {field: str(value) for field, value in found.items() if value is not None}


class TextFormatter(logging.Formatter):
    """A line for people, with what it is about in brackets at its end."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows it."""
        text = super().format(record)
        fields = about_of(record)
        if not fields:
            return text
        line, newline, rest = text.partition("\n")
        return f"{line} [{' '.join(f'{field}={value}' for field, value in fields.items())}]{newline}{rest}"


class JsonFormatter(logging.Formatter):
    """An object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
            **about_of(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def handler(form: LogFormat, text_format: str) -> logging.Handler:
    """What writes to stderr; `text_format` is the line for people, as `logging` has it."""
    made = logging.StreamHandler()
    made.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter(text_format))
    return made
