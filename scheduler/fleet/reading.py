"""From the text of `fleet.toml` to a `Fleet`, or to an error that names several problems at once.

The whole file is validated before anything is done with it: types and keys by the models, then, if all are right,
names and references (`references.py`).
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy_worker.contract.errors import ConfigurationError, NotFoundError
from scheduler.fleet.models import Fleet
from scheduler.fleet.references import problems_of
from scheduler.fleet.wording import expectation, key_path

STANDARD_INPUT = "-"


class FleetFileError(ConfigurationError):
    """The fleet file can't be read, isn't TOML, or says something that isn't valid."""


class NoSuchFleetFileError(NotFoundError):
    """The fleet file does not exist."""


def read_fleet(path: str) -> Fleet:
    """Read and validate a fleet file; `-` is standard input.

    Raises `NoSuchFleetFileError`, or `FleetFileError` naming each problem with its place in the file.
    """
    if path == STANDARD_INPUT:
        return _parse_unless_blank(sys.stdin.read(), "standard input")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NoSuchFleetFileError(
            path, why="there is no such file", remedy="`scheduler export` prints the present fleet to start from."
        ) from error
    except UnicodeDecodeError as error:
        raise FleetFileError(path, why=f"it is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise FleetFileError(path, why=f"it can't be read: {error.strerror}") from error
    return _parse_unless_blank(text, path)


def parse_fleet(text: str, source: str) -> Fleet:
    """Validate the text of a fleet file that errors call `source`. Raises `FleetFileError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FleetFileError(source, why=f"it is not valid TOML: {error}") from error
    try:
        # By way of JSON, because strict validation of Python objects takes no list for a tuple.
        fleet = Fleet.model_validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        # A list that is "too short" because of entries that aren't valid is no problem of its own.
        distinct = [
            details for details in error.errors() if not (details["type"] == "too_short" and details["input"])
        ]
        raise _file_error(source, [_problem(document, details) for details in distinct]) from error
    problems = problems_of(fleet)
    if problems:
        raise _file_error(source, problems)
    return fleet


def _parse_unless_blank(text: str, source: str) -> Fleet:
    """Refuse what a failed `export` leaves in a pipe: taken at its word, it would remove all that is declared."""
    if not text.strip():
        raise FleetFileError(
            source,
            why="it is empty, and applying it would remove everything",
            remedy="If that is meant, leave one line with a comment in it.",
        )
    return parse_fleet(text, source)


def _file_error(source: str, problems: Sequence[str]) -> FleetFileError:
    distinct = list(dict.fromkeys(problems))
    if len(distinct) == 1:
        return FleetFileError(source, why=distinct[0])
    return FleetFileError(source, why="\n  ".join([f"{len(distinct)} problems", *distinct]))


def _problem(document: Mapping[str, Any], details: ErrorDetails) -> str:
    """One line: the declaration by name, the key, and what is expected there."""
    location = list(details["loc"])
    expected = expectation(Fleet, details)
    if len(location) == 1:
        if details["type"] == "tuple_type" and isinstance(details["input"], Mapping):
            return f"write [[{location[0]}]], in two pairs of brackets: there may be several"
        return expected if details["type"] == "extra_forbidden" else f"key '{location[0]}': {expected}"
    if not isinstance(location[1], int):
        key = key_path(location[1:-1] if details["type"] in {"extra_forbidden", "missing"} else location[1:])
        return f"{location[0]}, key '{key}': {expected}" if key else f"{location[0]}: {expected}"
    kind, index = str(location[0]), location[1]
    entry = document[kind][index]
    name = entry.get("name") if isinstance(entry, Mapping) else None
    declared = f"{kind} {name!r}" if isinstance(name, str) else f"[[{kind}]] number {index + 1}"
    path = location[2:-1] if details["type"] in {"extra_forbidden", "missing"} else location[2:]
    key = key_path(path)
    return f"{declared}, key '{key}': {expected}" if key else f"{declared}: {expected}"
