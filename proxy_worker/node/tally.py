"""What a proxy's processes have done, counted in memory that they share.

Made before the fork. Each pool process has a row that it alone writes, so that nothing is locked and a process that
is killed leaves its figures behind; its successor has the same number and goes on with the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.sharedctypes import RawArray
from typing import Final

from billiard import current_process

from proxy_worker.contract.disks import DiskBackupResult, DiskRestoreResult
from proxy_worker.contract.figures import Bottleneck, DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskResult
from proxy_worker.contract.replication_outcome import DiskReplicateResult

OUTCOMES: Final = ("done", "failed", "lost", "handed back")
FATES: Final = ("processed", "read", "zero", "unchanged", "duplicate", "stored")
STAGES: Final = ("read", "transform", "deliver")
MOVING: Final = (TaskKind.DISK_BACKUP, TaskKind.DISK_RESTORE, TaskKind.DISK_COPY, TaskKind.DISK_REPLICATE)
Series = tuple[str, ...]


def _all_series() -> Iterator[Series]:
    for kind in TaskKind:
        yield from (("tasks", kind, outcome) for outcome in OUTCOMES)
    for kind in MOVING:
        yield from (("bytes", kind, fate) for fate in FATES)
        yield from (("seconds", kind, stage) for stage in STAGES)
        yield from (("bottleneck", kind, stage) for stage in Bottleneck)


_COLUMNS: Final[dict[Series, int]] = {series: column for column, series in enumerate(_all_series())}


class Tally:
    """Counters of all of a proxy's pool processes."""

    def __init__(self, processes: int) -> None:
        self._rows = processes
        self._values = RawArray("d", processes * len(_COLUMNS))

    def add(self, series: Series, amount: float = 1.0) -> None:
        """Count, in a pool process; amounts below zero are left out, since counters only rise."""
        row = getattr(current_process(), "index", 0) % self._rows
        if amount > 0:
            self._values[row * len(_COLUMNS) + _COLUMNS[series]] += amount

    def total(self, series: Series) -> float:
        """Of all processes since the proxy started; any process may ask."""
        column = _COLUMNS[series]
        return float(sum(self._values[row * len(_COLUMNS) + column] for row in range(self._rows)))


class DiskTally:
    """One task, as it is counted while it goes on."""

    def __init__(self, tally: Tally, kind: TaskKind, *, resumed: bool) -> None:
        """`resumed`: what it begins with has been counted by an earlier attempt."""
        self._tally = tally
        self._kind = kind
        self._counted: dict[str, int] | None = None if resumed else {}

    def note(self, progress: DiskProgress) -> None:
        """Count what has been moved since the last time."""
        if self._kind not in MOVING:
            return
        now = {fate: getattr(progress, f"{fate}_bytes") for fate in ("processed", "read", "stored")}
        if self._counted is not None:
            for fate, amount in now.items():
                self._tally.add(("bytes", self._kind, fate), amount - self._counted.get(fate, 0))
        self._counted = now

    def end(self, outcome: str, result: TaskResult | None) -> None:
        """Count how it ended and, of a disk, what the report has beyond the progress told."""
        self._tally.add(("tasks", self._kind, outcome))
        if not isinstance(result, DiskBackupResult | DiskRestoreResult | DiskReplicateResult):
            return
        report, kind, counted = result.report, self._kind, self._counted or {}
        moved = {"processed": report.size_bytes, "read": report.read_bytes, "stored": report.stored_bytes}
        if self._counted is not None:
            for fate, amount in moved.items():
                self._tally.add(("bytes", kind, fate), amount - counted.get(fate, 0))
        for fate in ("zero", "unchanged", "duplicate"):
            self._tally.add(("bytes", kind, fate), getattr(report, f"{fate}_bytes"))
        for stage in STAGES:
            self._tally.add(("seconds", kind, stage), getattr(report.stages, stage))
        self._tally.add(("bottleneck", kind, report.bottleneck))
