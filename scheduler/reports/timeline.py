"""Who had which disk when, how fast all of it went, and where the time went. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.reports.run_report import AttemptReport, DiskReport, RunReport


@dataclass(frozen=True, slots=True)
class Held:
    """A disk while a proxy had it."""

    disk: DiskReport
    attempt: AttemptReport


@dataclass(frozen=True, slots=True)
class Lane:
    """What one proxy did one after the other in one of its slots."""

    proxy: str
    slot: int
    """From 1; which of a proxy's slots is which isn't recorded, so these are as few as can be."""
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the run was from a moment on."""

    since: float
    """Unix seconds."""
    rate: float
    """Bytes of disks got through, per second."""


@dataclass(frozen=True, slots=True)
class TimeShare:
    """Where some of the disks' time went."""

    name: str
    """`waiting`, `reading`, `transforming`, `delivering`, or `lost`."""
    seconds: float


def lanes(report: RunReport) -> tuple[Lane, ...]:
    """Every attempt in a lane of its proxy, none overlapping another; proxies by name."""
    by_proxy: defaultdict[str, list[Held]] = defaultdict(list)
    for disk in report.disks:
        for attempt in disk.attempts:
            by_proxy[attempt.proxy].append(Held(disk, attempt))
    return tuple(
        Lane(proxy, slot, tuple(held))
        for proxy in sorted(by_proxy)
        for slot, held in enumerate(_packed(by_proxy[proxy]), start=1)
    )


def pace(report: RunReport) -> tuple[Pace, ...]:
    """The sum of all attempts' rates over time; each attempt counts with its average. Ends at 0."""
    changes: defaultdict[float, float] = defaultdict(float)
    for disk in report.disks:
        for attempt in disk.attempts:
            if attempt.rate is not None:
                changes[attempt.started] += attempt.rate
                changes[attempt.ended] -= attempt.rate
    steps, rate = [], 0.0
    for moment in sorted(changes):
        rate = max(0.0, rate + changes[moment])
        steps.append(Pace(moment, rate))
    return (*steps[:-1], Pace(steps[-1].since, 0.0)) if steps else ()


def time_shares(disks: Iterable[DiskReport]) -> tuple[TimeShare, ...]:
    """The disks' time from being queued to their ends, in seconds added up over the disks.

    The stages of a disk work side by side: its time is divided among them as they were busy.
    """
    waiting = reading = transforming = delivering = lost = 0.0
    for disk in disks:
        waiting += disk.waiting_seconds
        lost += disk.lost_seconds
        stages = disk.stages
        busy = stages.read + stages.transform + stages.deliver
        if busy > 0:
            reading += disk.moving_seconds * stages.read / busy
            transforming += disk.moving_seconds * stages.transform / busy
            delivering += disk.moving_seconds * stages.deliver / busy
        else:
            reading += disk.moving_seconds
    return (
        TimeShare("waiting", waiting),
        TimeShare("reading", reading),
        TimeShare("transforming", transforming),
        TimeShare("delivering", delivering),
        TimeShare("lost", lost),
    )


def _packed(held: Sequence[Held]) -> list[list[Held]]:
    """First fit by start, which needs no more lanes than there were ever attempts at once."""
    packed: list[list[Held]] = []
    for one in sorted(held, key=lambda one: one.attempt.started):
        free = next((lane for lane in packed if lane[-1].attempt.ended <= one.attempt.started), None)
        if free is None:
            packed.append([one])
        else:
            free.append(one)
    return packed
