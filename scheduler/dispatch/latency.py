"""Storage latency control: which disks are paused so that a datastore can answer others again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.dispatch.limits import Limits


@dataclass(frozen=True, slots=True)
class Reading:
    """A disk that is being read."""

    task_id: str
    datastore: str
    since: float
    """When it began, Unix seconds."""
    paused: bool


def paused(readings: list[Reading], latency_ms: Mapping[str, float], limits: Limits) -> set[str]:
    """The tasks that are to be paused now.

    From `throttle_ms` on, as many go on as would bring the latency down to `stop_ms` if it grew with their number,
    those that began first, and one at least. Below `stop_ms`, and where nothing is measured any more, all go on;
    in between it stays as it is, lest disks are paused and resumed by turns.
    """
    chosen: set[str] = set()
    by_datastore: dict[str, list[Reading]] = {}
    for reading in readings:
        by_datastore.setdefault(reading.datastore, []).append(reading)
    for datastore, disks in by_datastore.items():
        took_ms = latency_ms.get(datastore, 0.0)
        limit = limits.latency_limits(datastore)
        if took_ms >= limit.throttle_ms:
            moving = sum(not disk.paused for disk in disks)
            go_on = max(1, min(moving, int(moving * limit.stop_ms / took_ms)))
            ordered = sorted(disks, key=lambda disk: (disk.paused, disk.since, disk.task_id))
            chosen.update(disk.task_id for disk in ordered[go_on:])
        elif took_ms >= limit.stop_ms:
            chosen.update(disk.task_id for disk in disks if disk.paused)
    return chosen
