"""What simulations come to, each figure beside what is promised."""

from __future__ import annotations

import gc
import math
import statistics
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.simulation.simulation import Mishaps, Outcome, Simulation
from benchmarks.simulation.workload import Disk, Workload, jobs
from scheduler.dispatch.backlog import Backlog

JOB_CLASSES = (10, 100, 1_000, math.inf)
"""Upper ends of the sizes, in disks, that waiting is told apart by."""
PROMISED_MAKESPAN = 1.05
PROMISED_DECISIONS_PER_S = 2_000
PROMISED_GROWTH = 1.25
"""How much more memory a waiting task may take with four times as many of them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is as promised; a figure to know always is."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def without_mishaps(workload: Workload) -> list[Figure]:
    """Everything goes well: how close to the bound, how busy, who waits, how fast."""
    outcome = Simulation(workload).run()
    speed = len(outcome.order) / outcome.cpu_s
    return [
        Figure("makespan / bound", outcome.makespan_s / workload.bound_s, "x", at_most=PROMISED_MAKESPAN),
        Figure("bound", workload.bound_s / 3600, "h"),
        Figure("longest disk", max(disk.duration_s for disk in workload.disks) / 3600, "h"),
        _slots_in_use(workload, outcome),
        Figure("the same, while disks wait", 100 * _share_while_waiting(workload, outcome), "%"),
        *_waiting(workload, outcome),
        Figure("decisions", speed, "per s of CPU", at_least=PROMISED_DECISIONS_PER_S),
    ]


def with_mishaps(workload: Workload, mishaps: Mishaps) -> list[Figure]:
    """The same fleet on a bad day. All disks end all the same."""
    outcome = Simulation(workload, mishaps=mishaps).run()
    return [
        Figure("disks left undone", len(workload.disks) - len(outcome.ended), "disks", at_most=0),
        Figure("attempts that failed", outcome.failures, "attempts"),
        Figure("makespan / bound", outcome.makespan_s / workload.bound_s, "x"),
        _slots_in_use(workload, outcome),
    ]


def behind_a_large_job(workload: Workload, small: Sequence[Disk]) -> list[Figure]:
    """A job of a few disks begins to wait while a large one has every slot."""
    both = Workload(workload.proxies, (*workload.disks, *small))
    outcome = Simulation(both).run()
    ids = {disk.task.task_id for disk in small}
    since = min(disk.task.since for disk in small)
    before_it = sum(outcome.started[task_id] < since for task_id in outcome.order)
    served = outcome.order[before_it : before_it + len(ids)]
    return [
        Figure("freed slots that others got first", len(ids.difference(served)), "slots", at_most=0),
        Figure("small job's wait", max(outcome.started[task_id] for task_id in ids) - since, "s"),
    ]


def memory(datastores: int, *, disks: int) -> list[Figure]:
    """What waiting tasks take, with `disks` of them and with a quarter."""
    taken = {count: _bytes_per_task(count, datastores) for count in (disks // 4, disks)}
    few, many = taken.values()
    return [
        Figure("memory of a waiting task", many, "bytes"),
        Figure("the same / with a quarter of them", many / few, "x", at_most=PROMISED_GROWTH),
        Figure("memory of all waiting tasks", many * disks / (1 << 20), "MiB"),
    ]


def _bytes_per_task(count: int, datastores: int) -> float:
    gc.collect()
    tracemalloc.start()
    backlog = Backlog(disk.task for disk in jobs([count], datastores, seed=3))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / len(backlog)


def _slots_in_use(workload: Workload, outcome: Outcome) -> Figure:
    return Figure("slots in use", 100 * outcome.busy_s / workload.slots / outcome.makespan_s, "%")


def _share_while_waiting(workload: Workload, outcome: Outcome) -> float:
    busy_s = sum(
        min(outcome.ended[task_id], outcome.late_s) - started for task_id, started in outcome.started.items()
    )
    return min(1.0, busy_s / workload.slots / outcome.late_s) if outcome.late_s else 1.0


def _waiting(workload: Workload, outcome: Outcome) -> list[Figure]:
    """From a job's start to the beginning of its disks, by the size of jobs."""
    sizes = Counter(disk.task.job for disk in workload.disks)
    waits: dict[float, list[float]] = defaultdict(list)
    for disk in workload.disks:
        upper = next(upper for upper in JOB_CLASSES if sizes[disk.task.job] <= upper)
        waits[upper].append(outcome.started[disk.task.task_id] - disk.task.since)
    figures = []
    for lower, upper in pairwise((0, *JOB_CLASSES)):
        if waits[upper]:
            who = f"jobs of {lower + 1:,.0f} to {upper:,.0f} disks" if upper < math.inf else "larger jobs"
            figures.append(Figure(f"wait in {who}, median", statistics.median(waits[upper]) / 60, "min"))
    return figures
