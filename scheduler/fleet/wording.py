"""What a validation error means, in words that name the key and what is expected."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from proxy_worker.contract.names import NAME_PATTERN

_PLAIN = {
    "string_type": "expected a text in quotes",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list in brackets",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "too_short": "expected at least one entry",
    "string_too_short": "expected a text that isn't empty",
}
_SHOWN_VALUE_LENGTH = 60


def expectation(model: type[BaseModel], details: ErrorDetails) -> str:
    """Say what `details`, an error of validating a document as `model`, wants instead of what it found."""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        return unknown_key(str(details["loc"][-1]), known_keys(model, details["loc"][:-1]))
    if kind == "missing":
        return f"the key '{details['loc'][-1]}' is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch" and NAME_PATTERN in context["pattern"]:
        wanted = "expected a name of letters, digits, '.', '_' and '-', at most 63"
    elif kind in {"enum", "literal_error"}:
        wanted = f"expected {context['expected']}"
    elif kind in _PLAIN:
        wanted = _PLAIN[kind]
    else:
        wanted = details["msg"].replace("Input should be", "expected")
    return f"{wanted[0].lower()}{wanted[1:]}, got {_shown(value)}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Say that `key` isn't one of `known`, with the nearest or else all of them."""
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys are {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the table at `location` of a document of `model` may have."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            nested = next(_models_in(model.model_fields[part].annotation), None)
            model = nested or model
    return list(model.model_fields)


def key_path(location: Sequence[str | int]) -> str:
    """A place in a document as a person writes it: `disks[0].key`. Names of union members are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part.islower():
            path += f".{part}" if path else part
    return path


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE_LENGTH else f"{text[:_SHOWN_VALUE_LENGTH]}…"
