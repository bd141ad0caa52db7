"""What a check or a scrub has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

FindingKind = Literal[
    "config",
    "key",
    "pack",
    "missing pack",
    "parity",
    "index fragment",
    "point",
    "map",
    "segment",
    "block",
    "object",
]


class Use(NamedTuple):
    """A disk of a restore point."""

    vm: str
    run: str
    disk_key: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An object that isn't as it should be, and what is lost with it."""

    kind: FindingKind
    name: str
    problem: str
    needed_by: tuple[Use, ...] | None = None
    """None when it isn't known, for want of a key."""

    def __str__(self) -> str:
        text = f"{self.kind} {self.name}: {self.problem}"
        if self.needed_by is None:
            return text
        if not self.needed_by:
            return f"{text}; no restore point needs what is lost"
        uses = ", ".join(f"{use.vm} {use.run} {use.disk_key}".rstrip() for use in self.needed_by)
        return f"{text}; needed by {uses}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of a check or a scrub."""

    points: int
    packs: int
    read_bytes: int
    duration_seconds: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """Leftovers and the like: nothing is wrong with them."""
