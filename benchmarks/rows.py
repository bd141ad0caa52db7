"""The rows of the speed and memory table: what each compares, and its limit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Round = Mapping[str, float]
"""What one round measured, by name; seconds and bytes."""

MIB = 1 << 20
MEMORY_LIMIT_MIB = 150


@dataclass(frozen=True)
class Row:
    """A promise: a figure of each round, whose median must not exceed the limit, or not be below it."""

    name: str
    limit: float
    unit: str
    figure: Callable[[Round], float]
    needs: tuple[str, ...]
    at_least: bool = False


@dataclass(frozen=True)
class Judged:
    """A row with its figures."""

    row: Row
    figures: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    @property
    def holds(self) -> bool:
        return self.median >= self.row.limit if self.row.at_least else self.median <= self.row.limit


def _ratio(name: str, limit: float, over: str, under: str) -> Row:
    return Row(name, limit, "x", lambda r: r[over] / r[under], (over, under))


def _told(name: str, over: str, under: str) -> Row:
    """A ratio to know, without a promise."""
    return _ratio(name, math.inf, over, under)


def _value(name: str, limit: float, unit: str, of: str, scale: float = 1.0, *, at_least: bool = False) -> Row:
    return Row(name, limit, unit, lambda r: r[of] * scale, (of,), at_least)


def _restore(limit: float) -> Row:
    return _ratio("restore to memory: time / restic", limit, "restore_s", "restic_restore_s")


def _check(limit: float) -> Row:
    return _ratio("check of everything: time / restic", limit, "check_s", "restic_check_s")


_RESTORES = (
    _told("restore to memory: time / restic --sparse", "restore_s", "restic_sparse_restore_s"),
    _told("restore to a disk, durable: time / restic", "durable_restore_s", "restic_durable_restore_s"),
    _told("restore to a disk: durable / restic's own exit", "durable_restore_s", "restic_disk_restore_s"),
)

ROWS: tuple[Row, ...] = (
    _ratio("full backup, optimal: time / restic", 0.30, "full_s", "restic_full_s"),
    _ratio("full backup, optimal: time / bound", 1.40, "full_s", "bound_s"),
    _ratio("full backup, optimal: stored / borg", 1.05, "stored_bytes", "borg_stored_bytes"),
    _ratio("full backup, high: time / restic", 0.40, "high_s", "restic_full_s"),
    _ratio("full backup, high: stored / borg", 1.02, "high_stored_bytes", "borg_stored_bytes"),
    _ratio("incremental by digests: time / restic", 0.15, "digests_s", "restic_incremental_s"),
    _ratio("incremental by areas: read / touched blocks", 1.10, "areas_read_bytes", "touched_bytes"),
    _ratio("incremental by areas: 64 GiB / 4 GiB disk", 1.50, "wide_areas_s", "areas_s"),
    _restore(0.55),
    *_RESTORES,
    _check(0.40),
    _value("peak anonymous memory, 4 GiB disk", MEMORY_LIMIT_MIB, "MiB", "full_peak_bytes", 1 / MIB),
    _value("peak anonymous memory, 64 GiB disk", MEMORY_LIMIT_MIB, "MiB", "wide_peak_bytes", 1 / MIB),
    _ratio("peak anonymous memory: 64 GiB / 4 GiB disk", 1.15, "wide_peak_bytes", "full_peak_bytes"),
    _value("the disk through the fleet: more than standalone", 3.0, "s", "fleet_extra_s"),
    _value("a task on top of its data, 500 tiny disks", 150.0, "ms", "fleet_task_s", 1000),
)

REPOSITORY_ROWS: tuple[Row, ...] = (
    _check(0.33),
    _restore(0.45),
    *_RESTORES,
    _ratio("collection, 1,000 points: time / restic prune", 0.20, "collect_s", "restic_prune_s"),
    _told("the first collection: time / restic prune", "first_collect_s", "restic_prune_s"),
    _value("collection, 1,000 points: peak anonymous memory", 300.0, "MiB", "collect_peak_bytes", 1 / MIB),
    _value("random 64 KiB reads by NBD, warm", 150.0, "MiB/s", "export_mib_per_s", at_least=True),
    _value("serve-point: from its start to the first byte", 1.0, "s", "export_first_byte_s"),
)


def judge(rounds: Sequence[Round], rows: Sequence[Row] = ROWS) -> list[Judged]:
    """The rows that the rounds have figures for."""
    judged = []
    for row in rows:
        figures = tuple(row.figure(r) for r in rounds if all(name in r for name in row.needs))
        if figures:
            judged.append(Judged(row, figures))
    return judged
