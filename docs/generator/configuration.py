"""The page of everything that can be configured, from the models that validate it."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from generator import GENERATED
from proxy_worker.config import ProxyConfiguration
from proxy_worker.gateway.settings import GatewaySettings
from scheduler.configuration import SchedulerConfiguration
from scheduler.fleet.models import Fleet

INTRODUCTION = """# Configuration

Four files, all TOML. An unknown key or a value of another type is an error that names file, key and what is
expected.

- [fleet.toml](#fleettoml): what `scheduler apply -f` makes of the fleet, from any machine with the database.
- [scheduler.toml](#schedulertoml): the machine that runs `scheduler serve` and every other `scheduler` command.
- [proxy.toml](#proxytoml): each machine that runs `proxy-worker run`.
- [gateway.toml](#gatewaytoml): each machine that runs `proxy-worker serve`; see [gateways](../gateway.md).

Names have up to 63 letters, digits, `.`, `_` and `-`, and begin with a letter or digit.
"""
FILES: tuple[tuple[str, type[BaseModel], str], ...] = (
    (
        "fleet.toml",
        Fleet,
        "Each declaration is a table of an array: `[[job]]`. What the file leaves out is removed.",
    ),
    (
        "scheduler.toml",
        SchedulerConfiguration,
        "Found by `--config`, `$SCHEDULER_CONFIG`, `./scheduler.toml`, `/etc/proxyfleet/scheduler.toml`, in this "
        "order. `SCHEDULER_<KEY>` overrides a key, `SCHEDULER_<TABLE>__<KEY>` one in a table. Relative paths are "
        "relative to the file.",
    ),
    (
        "proxy.toml",
        ProxyConfiguration,
        "Given by `--config`. `PROXY_WORKER_<KEY>` overrides a key, `PROXY_WORKER_<TABLE>__<KEY>` one in a table. "
        "Relative paths are relative to the file.",
    ),
    (
        "gateway.toml",
        GatewaySettings,
        "Given by `--config`. `PROXY_GATEWAY_<KEY>` overrides a key. Relative paths are relative to the file.",
    ),
)
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_LIMITS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than", "minItems": "at least"}


def page() -> str:
    """The whole page."""
    sections = [f"\n## {name}\n\n{text}\n" + _tables(model) for name, model, text in FILES]
    return GENERATED + INTRODUCTION + "".join(sections)


def _tables(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    models = dict(_models_below(model))
    return "".join(
        _table(heading, place, models, schema["$defs"]) for heading, place in _places(schema, schema["$defs"], "")
    )


def _places(
    schema: Mapping[str, Any], known: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every table of the file with its heading, outer ones first."""
    own = {
        key: value for key, value in schema["properties"].items() if path or not _is_array_of_tables(value, known)
    }
    if own:
        yield path, {**schema, "properties": own}
    for key, value in schema["properties"].items():
        inner, several = _table_in(value, known)
        if inner is not None:
            nested = f"{path.strip('[]')}.{key}" if path else key
            array = not path and several == "list"
            heading = f"[[{nested}]]" if array else f"[{nested}.NAME]" if several == "map" else f"[{nested}]"
            yield from _places(inner, known, heading)


def _is_array_of_tables(value: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    inner, several = _table_in(value, known)
    return inner is not None and several == "list"


def _table_in(value: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The table that a key holds, if any, and whether one, a list or a map of them."""
    if "$ref" in value:
        found = known[value["$ref"].rpartition("/")[2]]
        return (found, "one") if "properties" in found else (None, "")
    if "anyOf" in value:
        return next((found for found in (_table_in(one, known) for one in value["anyOf"]) if found[0]), (None, ""))
    if value.get("type") == "array":
        return _table_in(value.get("items", {}), known)[0], "list"
    inside = value.get("additionalProperties") or next(iter(value.get("patternProperties", {}).values()), None)
    return (_table_in(inside, known)[0], "map") if isinstance(inside, Mapping) else (None, "")


def _table(
    heading: str, schema: Mapping[str, Any], models: Mapping[str, type[BaseModel]], known: Mapping[str, Any]
) -> str:
    model = models[schema["title"]]
    texts = _key_docstrings(model)
    lines = [f"\n### `{heading}`\n"] if heading else [""]
    if heading and model.__doc__:
        lines.append(f"{inspect.cleandoc(model.__doc__).splitlines()[0]}\n")
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        default = _default(value) if key not in schema.get("required", ()) else "required"
        lines.append(
            f"| `{key}` | {_kind(value, known)} | {default} | {texts.get(key) or _text_of_table(value, known)} |"
        )
    return "\n".join(lines) + "\n"


def _text_of_table(value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The first line about the table that a key holds."""
    inner, _ = _table_in(value, known)
    return str(inner.get("description", "")).partition("\n")[0] if inner is not None else ""


def _kind(value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What a key's value looks like, in words."""
    kind = value.get("type", "")
    if "$ref" in value:
        words = _kind(known[value["$ref"].rpartition("/")[2]], known)
    elif "anyOf" in value:
        kinds = [_kind(one, known) for one in value["anyOf"] if one.get("type") != "null"]
        words = " or ".join(dict.fromkeys(kinds))
    elif "enum" in value or "const" in value:
        words = ", ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    elif "prefixItems" in value:
        each = [_kind(one, known) for one in value["prefixItems"]]
        words = f"list of {len(each)}: {', '.join(each)}"
    elif kind == "array":
        words = f"list of {_kind(value['items'], known)}".replace("of table", "of tables")
    elif kind == "object":
        words = "table" if "properties" in value else "tables by name"
    else:
        limits = [f"{word} {value[limit]:g}" for limit, word in _LIMITS.items() if limit in value]
        words = ", ".join(["path" if value.get("format") == "path" else _WORDS[kind], *limits])
    return words


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default is None or default in ({}, []):
        return "none"
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return "see below" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _models_below(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The model and all that its keys hold, by the names that the schema uses."""
    yield model.__name__, model
    pending: list[Any] = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop()
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield from _models_below(annotation)
        pending += getattr(annotation, "__args__", ())


def _key_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each attribute of the class, in one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    if not isinstance(definition, ast.ClassDef):
        raise TypeError(f"the source of {model.__name__} isn't that of a class")
    found: dict[str, str] = {}
    for key, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(key.target)] = " ".join(str(text.value.value).split()).replace("|", "\\|")
    return found
