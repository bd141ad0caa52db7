"""Which restore points of a VM a job keeps, and why; pure, so that a preview and the deed can't differ.

A point stays if any rule wants it. Weeks (Monday to Sunday), months and years are those of the job's time zone; of
each the newest point counts. Only points that the job made itself are ever given up, and none that is pinned or
that a VM runs from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

CLOCK_DIFFERENCE_S: Final = 300.0
"""How far the clocks of machines may be apart."""
_DAY_S: Final = 86_400.0

Count = Annotated[int, Field(ge=0, le=100_000)]


class Retention(BaseModel):
    """How long restore points are kept. A point stays if any of these wants it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    points: Count = 7
    """The newest so many of each VM."""
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """All that are no older than so many days."""
    weekly: Count = 0
    """The newest of each of the last so many weeks that have one."""
    monthly: Count = 0
    """The newest of each of the last so many months that have one."""
    yearly: Count = 0
    """The newest of each of the last so many years that have one."""
    minimum: Annotated[int, Field(ge=1, le=100_000)] = 1
    """The newest so many of each VM always stay, whatever else is said."""


@dataclass(frozen=True, slots=True)
class HeldPoint:
    """A restore point of one VM, as the catalogue knows it."""

    point: str
    created_at: float
    """Unix seconds."""
    pinned: bool = False
    own: bool = True
    """Whether the job in question made it."""
    used: bool = False
    """Whether a VM runs from it."""
    damaged: bool = False
    """Whether something that it needs is lost, and waits for repair."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a point."""

    point: HeldPoint
    kept: bool
    why: str


def judge(points: Iterable[HeldPoint], retention: Retention, *, now: float, timezone: str = "UTC") -> list[Verdict]:
    """Say of each point of one VM what becomes of it, the newest first."""
    ordered = sorted(points, key=lambda held: (held.created_at, held.point), reverse=True)
    reasons: dict[str, list[str]] = {}
    ahead = {held.point for held in ordered if is_ahead(held.created_at, now)}
    candidates = [held for held in ordered if held.own and held.point not in ahead]
    sound = [held for held in candidates if not held.damaged]
    for held, reason in _wanted(candidates, retention, now, ZoneInfo(timezone)):
        reasons.setdefault(held.point, []).append(reason)
    for held, reason in _wanted(sound, retention, now, ZoneInfo(timezone)):
        reasons.setdefault(held.point, [f"{reason} that aren't damaged"])
    for held in ordered:
        if held.point in ahead:
            reasons[held.point] = ["its time is yet to come"]
        if held.used:
            reasons.setdefault(held.point, []).insert(0, "a VM runs from it")
        if held.pinned:
            reasons.setdefault(held.point, []).insert(0, "pinned")
        if not held.own:
            reasons[held.point] = ["another job's"]
    for held in (*candidates[: retention.minimum], *sound[: retention.minimum]):
        reasons.setdefault(held.point, [f"one of at least {retention.minimum}"])
    return [
        Verdict(held, kept=True, why=", ".join(reasons[held.point]))
        if held.point in reasons
        else Verdict(held, kept=False, why=f"older than what is kept: {words(retention)}")
        for held in ordered
    ]


def is_ahead(created_at: float, now: float) -> bool:
    """Whether a point's time is yet to come (both in Unix seconds), whatever clocks differ by."""
    return created_at > now + CLOCK_DIFFERENCE_S


def words(retention: Retention) -> str:
    """What a policy keeps: `the newest 7, 14 days, 4 weekly`."""
    said = [f"the newest {retention.points}"] if retention.points else []
    if retention.days is not None:
        said.append(f"{retention.days} days")
    for count, name in ((retention.weekly, "weekly"), (retention.monthly, "monthly"), (retention.yearly, "yearly")):
        if count:
            said.append(f"{count} {name}")
    return ", ".join(said) or f"at least {retention.minimum}"


def _wanted(
    newest_first: Sequence[HeldPoint], retention: Retention, now: float, zone: ZoneInfo
) -> Iterable[tuple[HeldPoint, str]]:
    for place, held in enumerate(newest_first[: retention.points], 1):
        yield held, f"newest {place} of {retention.points}"
    if retention.days is not None:
        for held in newest_first:
            if held.created_at >= now - retention.days * _DAY_S:
                yield held, f"within {retention.days} days"
    yield from _newest_of_each(newest_first, retention.weekly, "weekly", lambda at: at.isocalendar()[:2], zone)
    yield from _newest_of_each(newest_first, retention.monthly, "monthly", lambda at: (at.year, at.month), zone)
    yield from _newest_of_each(newest_first, retention.yearly, "yearly", lambda at: (at.year, 0), zone)


def _newest_of_each(
    newest_first: Sequence[HeldPoint],
    count: int,
    name: str,
    period: Callable[[datetime], tuple[int, int]],
    zone: ZoneInfo,
) -> Iterable[tuple[HeldPoint, str]]:
    seen: set[tuple[int, int]] = set()
    for held in newest_first:
        if len(seen) >= count:
            return
        when = period(datetime.fromtimestamp(held.created_at, zone))
        if when not in seen:
            seen.add(when)
            yield held, f"{name} {len(seen)} of {count}"
