"""The page of every error a user can see, by walking the tree of exceptions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import ModuleType

import proxy_worker
import scheduler
from generator import GENERATED
from proxy_worker.contract import errors as categories
from proxy_worker.contract.errors import ProxyfleetError

INTRODUCTION = """# Errors and exit codes

An error is one message on standard error: what failed and on what, why, and what to do. Its exit code tells scripts
the category; its code is what the history of runs keeps. Where it says *retried*, the scheduler tries the task
again by itself, as the job's retries allow.

| exit code | meaning |
|---|---|
| 0 | success; with `--wait`, every disk succeeded |
| 1 | some or all disks of a run failed, or an error of no other category |
| 2 | the command line can't be understood |
"""
INTERRUPTED = "| 130 | Ctrl-C; what was waited for goes on |\n"


def page() -> str:
    """The whole page."""
    _import_everything()
    by_category: defaultdict[type[ProxyfleetError], dict[str, list[type[ProxyfleetError]]]] = defaultdict(dict)
    for error in _subclasses(ProxyfleetError):
        by_category[_category(error)].setdefault(error.code(), []).append(error)
    codes = Counter(code for errors in by_category.values() for code in errors)
    if twice := [code for code, count in codes.items() if count > 1]:
        raise SystemExit(f"an error code has one exit code, and these have several: {', '.join(twice)}")
    ordered = sorted(by_category, key=lambda category: category.exit_code)
    overview = "".join(
        f"| {category.exit_code} | {_meaning(category)} |\n"
        for category in ordered
        if category is not ProxyfleetError
    )
    sections = "".join(_section(category, by_category[category]) for category in ordered)
    return GENERATED + INTRODUCTION + overview + INTERRUPTED + sections


def _import_everything() -> None:
    packages: tuple[ModuleType, ...] = (proxy_worker, scheduler)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _subclasses(error: type[ProxyfleetError]) -> Iterator[type[ProxyfleetError]]:
    for subclass in error.__subclasses__():
        if subclass.__module__.partition(".")[0] in {"proxy_worker", "scheduler"}:
            yield subclass
            yield from _subclasses(subclass)


def _category(error: type[ProxyfleetError]) -> type[ProxyfleetError]:
    return next(ancestor for ancestor in error.__mro__ if ancestor.__module__ == categories.__name__)


def _section(category: type[ProxyfleetError], errors: dict[str, list[type[ProxyfleetError]]]) -> str:
    words = category.code().replace("-", " ").capitalize()
    title = "Other errors" if category is ProxyfleetError else words
    lines = [f"\n## {title} (exit code {category.exit_code})\n", "| code | meaning |", "|---|---|"]
    for code, kinds in sorted(errors.items()):
        meanings = dict.fromkeys(_meaning(kind) for kind in sorted(kinds, key=lambda kind: kind.__module__))
        retried = " *Retried.*" if any(kind.retryable for kind in kinds) else ""
        lines.append(f"| `{code}` | {' '.join(meanings)}{retried} |")
    return "\n".join(lines) + "\n"


def _meaning(error: type[ProxyfleetError]) -> str:
    return " ".join(inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0].split()).replace("|", "\\|")
