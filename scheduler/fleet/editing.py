"""Single declarations added and removed, by the rules that hold for a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConfigurationError, ConflictError
from scheduler.fleet.changes import changes
from scheduler.fleet.models import Declaration, Fleet, Site, declarations
from scheduler.fleet.references import problems_of
from scheduler.fleet.stored import carry_out, stored_fleet
from scheduler.fleet.wording import expectation, key_path


class DeclarationError(ConfigurationError):
    """What is to be declared isn't valid, or refers to something that isn't declared."""


class AlreadyDeclaredError(ConflictError):
    """Something of that kind has that name already."""


class StillNeededError(ConflictError):
    """What is to be removed is referred to by other declarations."""


def declare(session: Session, kind: str, keys: Mapping[str, Any]) -> Declaration:
    """Add a declaration of `kind` with the keys that a fleet file would have; returns it.

    The first site needs no declaration of its own. Raises `DeclarationError`, or `AlreadyDeclaredError`.
    """
    declared, current, wanted = _with(session, kind, keys)
    carry_out(session, changes(current, wanted))
    return declared


def require_declarable(session: Session, kind: str, keys: Mapping[str, Any]) -> None:
    """Raise what `declare` would raise, and add nothing."""
    _with(session, kind, keys)


def _with(session: Session, kind: str, keys: Mapping[str, Any]) -> tuple[Declaration, Fleet, Fleet]:
    """The declaration that these keys make, and the fleet without and with it."""
    given = {key: value for key, value in keys.items() if value is not None}
    what = f"{kind.replace('_', ' ')} {given.get('name')!r}"
    try:
        added = Fleet.model_validate_json(json.dumps({kind: [given]}), strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        key = key_path(found["loc"][2:])
        expected = expectation(Fleet, found)
        raise DeclarationError(what, why=f"{key}: {expected}" if key else expected) from error
    (declared,) = declarations(added, kind).values()
    current = stored_fleet(session)
    if declared.name in declarations(current, kind):
        goes_on = f"; `scheduler proxy deploy {declared.name}` goes on with that one" if kind == "proxy" else ""
        raise AlreadyDeclaredError(
            f"{what} can't be created",
            why="that name is taken",
            remedy=f"Choose another, or change it with a file{goes_on}.",
        )
    update: dict[str, Any] = {kind: (*getattr(current, kind), declared)}
    if not current.site and "site" in given:
        update["site"] = (Site(name=given["site"]),)
    wanted = current.model_copy(update=update)
    problems = problems_of(wanted)
    if problems:
        raise DeclarationError(
            problems[0], remedy="Declare it in a file: `scheduler export`, `scheduler apply -f`."
        )
    return declared, current, wanted


def withdraw(session: Session, kind: str, name: str) -> None:
    """Remove a declaration.

    Raises `StillNeededError` while others refer to it, `RunActiveError` for a job with a run under way.
    """
    current = stored_fleet(session)
    kept = tuple(declared for declared in getattr(current, kind) if declared.name != name)
    wanted = current.model_copy(update={kind: kept})
    problems = problems_of(wanted)
    if problems:
        needed_by = ", ".join(dict.fromkeys(problem.partition(",")[0] for problem in problems))
        raise StillNeededError(
            f"{kind} {name!r} can't be removed",
            why=f"it is still needed by {needed_by}",
            remedy="Remove or change those first.",
        )
    carry_out(session, changes(current, wanted))
