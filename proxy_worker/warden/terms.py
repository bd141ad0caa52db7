"""How long which objects of a hardened repository stay as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

UNLOCKED: Final = frozenset({"damaged", "proofs", "readers", "writers"})
"""Folders whose objects come and go: marks of who is at work, and what can be found out again."""
_FOR_EVER: Final = frozenset({"config", "keys"})
"""Without these nobody could read anything, however long that is locked."""
_RENEWED: Final = frozenset({"packs", "parity"})
_PACKS_LONGER: Final = 1 / 2
_DUE: Final = 1 / 4
_KEPT_WITHIN: Final = 1 / 8


def folder_of(name: str) -> str:
    """The first part of an object's name, which says what it is."""
    return name.partition("/")[0]


def is_lockable(name: str) -> bool:
    """Whether an object of that name is to be locked."""
    return folder_of(name) not in UNLOCKED


@dataclass(frozen=True)
class Terms:
    """The terms of one repository.

    A restore point also needs packs that are older than it. What its own disks' writers name they renew. What it
    takes over from an earlier point the upkeep has renewed: packs are locked for half a period more than all else,
    and renewed when they have lost half of that. So upkeep every eighth of a period leaves none of them locked for
    less than a point that is made in between. Where the upkeep is late, whoever makes a point renews all it needs.
    """

    period_s: float

    def of(self, name: str) -> float:
        """How long a new object of that name is locked, in seconds; `math.inf` for ever."""
        folder = folder_of(name)
        if folder in _FOR_EVER:
            return math.inf
        return self.period_s * (1 + _PACKS_LONGER) if folder in _RENEWED else self.period_s

    def is_due(self, name: str, left_s: float) -> bool:
        """Whether to begin the term of an object anew that a restore point needs."""
        return folder_of(name) in _RENEWED and left_s < self.period_s * (1 + _DUE)

    def is_overdue(self, since_kept_s: float) -> bool:
        """Whether the upkeep last renewed all packs that are needed too long ago."""
        return since_kept_s > self.period_s * _KEPT_WITHIN
