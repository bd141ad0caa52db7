"""The simulation in small: what it must come to is known exactly, and no promise depends on the machine's speed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation.figures import behind_a_large_job, memory, with_mishaps, without_mishaps
from benchmarks.simulation.simulation import Mishaps, Simulation
from benchmarks.simulation.workload import Disk, Workload, fleet, job_sizes, jobs

DATASTORES = 6


def alike(count: int, *, job: int = 0, since: float = 0.0, duration_s: float = 60.0) -> tuple[Disk, ...]:
    """A job's disks, each of which takes as long as the others, each of a VM of its own."""
    sizes = [0] * job + [count]
    made = jobs(sizes, DATASTORES, seed=1, since=since)
    return tuple(Disk(replace(disk.task, vm=None, work_bytes=1), duration_s) for disk in made)


def test_disks_that_are_alike_leave_no_slot_idle() -> None:
    everyone = fleet(5, 2, DATASTORES, seed=1, reach=DATASTORES)
    outcome = Simulation(Workload(everyone, alike(40))).run()
    assert outcome.makespan_s == 240.0
    assert outcome.busy_s == 240.0 * 10


def test_the_next_freed_slots_are_a_small_jobs() -> None:
    everyone = fleet(5, 2, DATASTORES, seed=1, reach=DATASTORES)
    small = alike(2, job=1, since=90.0)
    outcome = Simulation(Workload(everyone, (*alike(100), *small))).run()
    assert [outcome.started[disk.task.task_id] for disk in small] == [120.0, 120.0]


def test_not_one_slot_goes_to_a_large_job_before_a_small_one_is_served() -> None:
    everyone = fleet(5, 2, DATASTORES, seed=1, reach=DATASTORES)
    large = Workload(everyone, tuple(jobs([200], DATASTORES, seed=1)))
    assert all(figure.holds for figure in behind_a_large_job(large, alike(2, job=1, since=600.0)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sizes_as_they_are_end_within_a_twentieth_of_the_bound(seed: int) -> None:
    everyone = fleet(20, 4, DATASTORES, seed=seed, reach=DATASTORES)
    sizes = job_sizes(2_000, 200, seed=seed)
    figures = without_mishaps(Workload(everyone, tuple(jobs(sizes, DATASTORES, seed=seed))))
    (makespan,) = [figure for figure in figures if figure.name == "makespan / bound"]
    assert 1.0 <= makespan.value <= 1.05


def test_every_disk_ends_on_a_bad_day_too() -> None:
    everyone = fleet(10, 2, DATASTORES, seed=1, reach=DATASTORES // 2)
    workload = Workload(everyone, tuple(jobs([300, 20, 2], DATASTORES, seed=1)))
    undone, failed, *_ = with_mishaps(workload, Mishaps(failing_share=0.1, slow_share=0.3, outages=3))
    assert undone.value == 0
    assert failed.value > 0


def test_memory_grows_no_faster_than_what_waits() -> None:
    assert all(figure.holds for figure in memory(DATASTORES, disks=40_000))
