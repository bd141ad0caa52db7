"""From a `Fleet` to the text of a `fleet.toml`, laid out for people: one table a declaration, defaults left out."""

from __future__ import annotations

from typing import Any

import tomlkit
from pydantic import BaseModel
from tomlkit.items import AoT, InlineTable, Table

from scheduler.fleet.dispatching import Dispatch
from scheduler.fleet.models import KINDS, Fleet

HEADER = "What `scheduler apply -f` makes of this file is exactly what it says; keys left out have their defaults."


def write_fleet(fleet: Fleet) -> str:
    """The text of a fleet file; reading it gives back an equal fleet."""
    document = tomlkit.document()
    document.add(tomlkit.comment(HEADER))
    for kind in KINDS:
        tables = AoT([_table(declared) for declared in getattr(fleet, kind)])
        if tables:
            document.add(tomlkit.nl())
            document.add(kind, tables)
    if fleet.dispatch != Dispatch():
        document.add(tomlkit.nl())
        document.add("dispatch", _table(fleet.dispatch))
    return tomlkit.dumps(document)


def _table(declared: BaseModel) -> Table:
    table = tomlkit.table()
    for key, value in _said(declared).items():
        table.add(key, _value(value))
    return table


def _said(declared: BaseModel) -> dict[str, Any]:
    return declared.model_dump(mode="json", exclude_defaults=True)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _inline(value)
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        array = tomlkit.array()
        array.extend(_inline(entry) for entry in value)
        return array.multiline(multiline=True)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _inline(values: dict[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update({key: _value(value) for key, value in values.items()})
    return table
