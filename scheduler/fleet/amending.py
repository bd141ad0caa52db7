"""Keys of one declaration changed, by the rules that hold for a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import NotFoundError
from scheduler.fleet.changes import changes
from scheduler.fleet.editing import DeclarationError
from scheduler.fleet.models import Fleet, declarations
from scheduler.fleet.references import problems_of
from scheduler.fleet.stored import carry_out, stored_fleet
from scheduler.fleet.wording import expectation, key_path


class NotDeclaredError(NotFoundError):
    """Nothing of that kind and name is declared."""


def amend(session: Session, kind: str, name: str, keys: Mapping[str, Any]) -> None:
    """Change keys of a declaration; None stands for an absent key.

    Raises `NotDeclaredError`, or `DeclarationError` when the outcome isn't valid.
    """
    current = stored_fleet(session)
    known = declarations(current, kind)
    if name not in known:
        raise NotDeclaredError(
            f"{kind} {name!r}",
            why=f"no {kind} of that name is declared",
            remedy="`scheduler export` shows what is.",
        )
    amended = _without_absent({**known[name].model_dump(mode="json"), **keys})
    (declared,) = getattr(_validated(f"{kind} {name!r}", {kind: [amended]}), kind)
    others = tuple(one for other, one in known.items() if other != name)
    _make_so(session, current, current.model_copy(update={kind: (*others, declared)}))


def amend_dispatch(session: Session, keys: Mapping[str, Any]) -> None:
    """Change keys of `[dispatch]`; None stands for an absent key. Raises `DeclarationError`."""
    current = stored_fleet(session)
    amended = _without_absent({**current.dispatch.model_dump(mode="json"), **keys})
    wanted = _validated("dispatch", {"dispatch": amended}).dispatch
    _make_so(session, current, current.model_copy(update={"dispatch": wanted}))


def _without_absent(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _validated(what: str, document: Mapping[str, Any]) -> Fleet:
    try:
        return Fleet.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        depth = 2 if isinstance(found["loc"][1], int) else 1
        key = key_path(found["loc"][depth:])
        expected = expectation(Fleet, found)
        raise DeclarationError(what, why=f"{key}: {expected}" if key else expected) from error


def _make_so(session: Session, current: Fleet, wanted: Fleet) -> None:
    problems = problems_of(wanted)
    if problems:
        raise DeclarationError(problems[0])
    carry_out(session, changes(current, wanted))
