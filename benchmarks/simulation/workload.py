"""What is simulated: a fleet, and disks whose sizes are spread as those of real VMs are."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.names import TaskKind, TransportMode
from scheduler.dispatch.fleet import FleetProxy, FleetRepository, PendingTask, Placement, Urgency

GIB: Final = 1 << 30
RATE: Final = 150e6
"""Bytes per second of one disk on one slot."""
MEDIAN_BYTES: Final = 60 * GIB
SIGMA: Final = 1.1
"""Of the lognormal that sizes follow; the mean is 1.8 times the median, one in a hundred exceeds 13 times."""
SMALLEST_BYTES: Final = GIB
LARGEST_BYTES: Final = 1024 * GIB
NOISE_SIGMA: Final = 0.2
"""How far the time that a disk takes is from what its size tells: the policy knows only the size."""
DISKS_OF_VM: Final = (1, 1, 1, 2, 2, 3, 4)
SITE: Final = "primary"
REPOSITORY: Final = FleetRepository("main", SITE, None)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a job, and how long it takes on a proxy of ordinary speed."""

    task: PendingTask
    duration_s: float


@dataclass(frozen=True, slots=True)
class Workload:
    """A fleet and what it has to do."""

    proxies: tuple[FleetProxy, ...]
    disks: tuple[Disk, ...]

    @property
    def slots(self) -> int:
        """How many disks may run at once."""
        return sum(proxy.slots for proxy in self.proxies)

    @property
    def bound_s(self) -> float:
        """No order whatever takes less time, if all proxies have ordinary speed."""
        durations = [disk.duration_s for disk in self.disks]
        return max(sum(durations) / self.slots, *durations)


def fleet(proxies: int, slots: int, datastores: int, *, seed: int, reach: int) -> tuple[FleetProxy, ...]:
    """Proxies of which each reaches so many of the datastores, drawn at random."""
    draw = random.Random(seed)  # the same figures every time
    names = [f"ds{number:02}" for number in range(datastores)]
    return tuple(
        FleetProxy(
            name=f"proxy-{number:04}",
            site=SITE,
            slots=slots,
            used=0,
            datastores=dict.fromkeys(draw.sample(names, reach), (TransportMode.DIRECT_STORAGE,)),
            modes=(),
            credentials={},
        )
        for number in range(proxies)
    )


def jobs(sizes: Sequence[int], datastores: int, *, seed: int, since: float = 0.0) -> Iterator[Disk]:
    """The disks of one job for each of `sizes`, all waiting `since` then; each VM lies in one datastore."""
    draw = random.Random(seed)
    placements = [
        Placement(TaskKind.DISK_BACKUP, repository=REPOSITORY.name, datastore=f"ds{number:02}")
        for number in range(datastores)
    ]
    for number, size in enumerate(sizes):
        job, vm, left = f"job-{number:03}", 0, 0
        for disk in range(size):
            if not left:
                vm, left = vm + 1, draw.choice(DISKS_OF_VM)
                placement = draw.choice(placements)
            left -= 1
            work = min(max(draw.lognormvariate(0.0, SIGMA) * MEDIAN_BYTES, SMALLEST_BYTES), LARGEST_BYTES)
            task = PendingTask(
                task_id=f"{job}.{disk:05}",
                placement=placement,
                job=job,
                urgency=Urgency.REGULAR,
                since=since,
                vm=f"{job}/vm{vm}",
                work_bytes=int(work),
            )
            yield Disk(task, work / RATE * draw.lognormvariate(0.0, NOISE_SIGMA))


def job_sizes(disks: int, largest: int, *, seed: int) -> list[int]:
    """Sizes of jobs that have `disks` together: one of `largest`, the others from two disks to thousands."""
    draw = random.Random(seed)
    sizes = [largest]
    while (left := disks - sum(sizes)) > 0:
        sizes.append(min(left, largest, max(2, int(draw.lognormvariate(4.0, 1.8)))))
    return sizes
