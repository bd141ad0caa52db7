"""Which restore points a copy job copies, as the catalogue tells; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from proxy_worker.contract.subjects import Name
from scheduler.planning.criteria import Pattern
from scheduler.planning.matching import is_pattern, matches
from scheduler.planning.retention import HeldPoint, Retention, is_ahead, judge

_LATER_COPY: Final = re.compile(r"(.+)\.[0-9]+")
"""What a copy is called whose former name was given up in the target."""


class PointChoice(StrEnum):
    """Which restore points of a VM are copied."""

    NEWEST = "newest"
    ALL = "all"
    """All that the target lacks and the job's retention would keep there, oldest first."""


class CopyTerms(BaseModel):
    """Where a copy job finds restore points, and which of them it copies."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    repository: Name
    """The repository that is copied from."""
    jobs: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    """Of which jobs, by name or pattern; a job that is gone counts by the name that it had."""
    points: PointChoice = PointChoice.NEWEST
    """Which restore points of each VM: the `newest`, or `all` that the target lacks."""


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A restore point of the catalogue."""

    vm_id: str
    vm_name: str
    point: str
    job: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a copy job has to do."""

    points: tuple[KnownPoint, ...]
    """To copy: by VM, oldest first."""
    unknown: tuple[str, ...]
    """Patterns that no VM in the source has."""


def wanted_copies(
    source: Iterable[KnownPoint],
    terms: CopyTerms,
    vms: Sequence[str],
    *,
    there: Collection[tuple[str, str]],
    now: float,
) -> Wanted:
    """Choose among the points of the source.

    `vms` are names or patterns of VMs as they were called last; none takes all. `there` are the VM ids and points
    that the target has. What was copied before and given up there is for the target to say: it may be a new one.
    A point whose time is yet to come is the newest only where there is no other: later ones would never be copied.
    """
    of_jobs = [point for point in source if any(matches(point.job, pattern) for pattern in terms.jobs)]
    of_jobs.sort(key=lambda point: (not is_ahead(point.created_at, now), point.created_at, point.point))
    names = {point.vm_id: point.vm_name for point in of_jobs}
    unknown = tuple(
        pattern for pattern in dict.fromkeys(vms) if not any(matches(name, pattern) for name in names.values())
    )
    taken = {vm_id for vm_id, name in names.items() if not vms or any(matches(name, pattern) for pattern in vms)}
    chosen = [point for point in of_jobs if point.vm_id in taken]
    if terms.points is PointChoice.NEWEST:
        chosen = list({point.vm_id: point for point in chosen}.values())
    have = {(vm_id, name) for vm_id, point in there for name in (point, original_name(point))}
    missing = (point for point in chosen if (point.vm_id, point.point) not in have)
    return Wanted(
        tuple(sorted(missing, key=lambda point: (names[point.vm_id], point.vm_id, point.created_at))), unknown
    )


def kept_copies(
    missing: Iterable[KnownPoint],
    held: Iterable[HeldPoint],
    retention: Retention,
    *,
    now: float,
    timezone: str,
) -> list[KnownPoint]:
    """Those of one VM's `missing` points that a job's retention would keep beside what it holds in the target."""
    missing = list(missing)
    would_be = [HeldPoint(point.point, point.created_at) for point in missing]
    kept = {
        verdict.point.point
        for verdict in judge([*held, *would_be], retention, now=now, timezone=timezone)
        if verdict.kept
    }
    return [point for point in missing if point.point in kept]


def original_name(point: str) -> str:
    """What the original of a copy may be called; of anything else, its own name."""
    match = _LATER_COPY.fullmatch(point)
    return match[1] if match else point


def nothing_matches(pattern: str, repository: str) -> str:
    """Why a pattern of VMs comes to nothing."""
    if is_pattern(pattern):
        return f"no VM that the job copies matches {pattern!r} in repository {repository}"
    return f"no restore point of a VM of that name is known in repository {repository}"
