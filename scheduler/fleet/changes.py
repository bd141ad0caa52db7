"""What applying a fleet would change, as a value that can be shown, counted and carried out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from scheduler.fleet.dispatching import Dispatch
from scheduler.fleet.models import KINDS, Declaration, Fleet, declarations


class Action(StrEnum):
    """What happens to a declaration."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class KeyChange:
    """One key of a declaration that gets another value; None stands for an absent key."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """One declaration that is added, changed or removed."""

    action: Action
    kind: str
    name: str
    old: Declaration | Dispatch | None
    new: Declaration | Dispatch | None
    keys: tuple[KeyChange, ...] = ()


def changes(current: Fleet, wanted: Fleet) -> tuple[Change, ...]:
    """What makes `current` equal to `wanted`: additions and changes, what is referred to first, then removals."""
    kept: list[Change] = []
    removed: list[Change] = []
    for kind in KINDS:
        have, want = declarations(current, kind), declarations(wanted, kind)
        for name, new in want.items():
            old = have.get(name)
            if old is None:
                kept.append(Change(Action.ADDED, kind, name, None, new))
            elif old != new:
                kept.append(Change(Action.CHANGED, kind, name, old, new, _key_changes(old, new)))
        removed += [Change(Action.REMOVED, kind, name, old, None) for name, old in have.items() if name not in want]
    old_dispatch, dispatch = current.dispatch, wanted.dispatch
    if old_dispatch != dispatch:
        keys = _key_changes(old_dispatch, dispatch)
        kept.append(Change(Action.CHANGED, "dispatch", "fleet", old_dispatch, dispatch, keys))
    return (*kept, *reversed(removed))


def _key_changes(old: BaseModel, new: BaseModel) -> tuple[KeyChange, ...]:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return tuple(KeyChange(key, before[key], after[key]) for key in before if before[key] != after[key])
