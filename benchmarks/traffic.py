"""`python -m benchmarks.traffic`: whether a rule of 80 Mbit/s holds, and how jobs share it.

Two real proxies back up disks of random bytes into one repository on this machine, as 1, 3 and 8 tasks of 1, 2 and
3 jobs. What lands in the repository in half a minute is compared with the limit, and what each job stored with an
equal part. Exits with 1 when a promise isn't kept.

With `--gateway` the repository is behind one, and packs are sent after they are made: what lands there is compared
with the limit, and not told apart by jobs.

With `--replication` each of the two replicates disks to the other, and what crosses their links in both directions,
all told, is compared with the limit, and of each job with an equal part.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.far import HERE, certify, gateway
from benchmarks.traffic_backups import Backups
from benchmarks.traffic_load import PROXIES, Load, Task
from benchmarks.traffic_replications import Replications
from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import TaskVerdict, Timings, Traffic
from tests.tasks.fleet import Fleet, wait_until

LIMIT_BYTES_PER_S: Final = 10_000_000
"""80 Mbit/s."""
SCENES: Final = ((1,), (2, 1), (5, 2, 1))
"""Tasks of each job."""
WINDOW_S: Final = 30.0
SETTLING_S: Final = 6.0
"""Until the last that began has its share."""
HELD_WITHIN, SHARED_WITHIN = 0.05, 0.10
BEGUN_BYTES: Final = 1 << 20
"""More than links exchange before any data."""


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--gateway", action="store_true", help="into a repository behind a gateway")
    where.add_argument("--replication", action="store_true", help="to replicas that the other proxy writes")
    parser.add_argument("--work", type=Path, help="where to put about 3 GiB; a temporary folder unless told")
    options = parser.parse_args()
    table = Table("tasks", "jobs", "MB/s in all", "of the limit", "jobs' parts of an equal one", "holds")
    kept = True
    for tasks_of in SCENES:
        with (
            tempfile.TemporaryDirectory(prefix="traffic-", dir=options.work) as work,
            _load(Path(work), behind_gateway=options.gateway, replication=options.replication) as load,
        ):
            rate, parts = _measure(load, tasks_of)
        holds = abs(rate / LIMIT_BYTES_PER_S - 1) <= HELD_WITHIN
        holds &= options.gateway or max(abs(part - 1) for part in parts) <= SHARED_WITHIN
        kept &= holds
        table.add_row(
            str(sum(tasks_of)),
            str(len(tasks_of)),
            f"{rate / 1e6:.2f}",
            f"{rate / LIMIT_BYTES_PER_S:.3f}",
            "" if options.gateway else ", ".join(f"{part:.3f}" for part in parts),
            "yes" if holds else "NO",
        )
    Console(width=110).print(table)
    return 0 if kept else 1


@contextmanager
def _load(work: Path, *, behind_gateway: bool, replication: bool) -> Iterator[Load]:
    """Two proxies that wait for tasks under the rule."""
    certify(work, proxies=PROXIES)
    with gateway(work, work) if behind_gateway else nullcontext() as port, _fleet(work) as fleet:
        if replication:
            with Replications.prepared(fleet) as load:
                yield load
        else:
            yield Backups(fleet, f"proxyfleet://{HERE}:{port}/far" if port else None)


@contextmanager
def _fleet(work: Path) -> Iterator[Fleet]:
    valkey = EmbeddedValkey(work, "benchmark").start()
    fleet = Fleet(work, valkey, Timings())
    try:
        yield fleet
    finally:
        fleet.end()
        valkey.kill()


def _measure(load: Load, tasks_of: Sequence[int]) -> tuple[float, list[float]]:
    """Bytes per second that arrived in all, and what each job moved of an equal part."""
    load.fleet.ledger.set_traffic(Traffic({"wan": LIMIT_BYTES_PER_S}, {flow: ["wan"] for flow in load.flows}))
    jobs = _prepared(load, tasks_of)
    everything = [task for tasks in jobs for task in tasks]
    for task in everything:
        task.begin(load.fleet)
    wait_until(lambda: all(load.moved_bytes([task]) > BEGUN_BYTES for task in everything), "all tasks send", 120)
    time.sleep(SETTLING_S)
    before, began_s = [load.moved_bytes(tasks) for tasks in jobs], time.monotonic()
    before_bytes = load.arrived_bytes()
    time.sleep(WINDOW_S)
    seconds = time.monotonic() - began_s
    arrived_bytes = load.arrived_bytes() - before_bytes
    moved = [load.moved_bytes(tasks) - earlier for tasks, earlier in zip(jobs, before, strict=True)]
    for task in everything:
        load.fleet.ledger.set_verdict(task.task_id, TaskVerdict.CANCEL)
    in_all = sum(moved) or 1  # to a gateway everything may be made, and wait to be sent
    return arrived_bytes / seconds, [one * len(jobs) / in_all for one in moved]


def _prepared(load: Load, tasks_of: Sequence[int]) -> list[list[Task]]:
    """The tasks of each job, none of which ends before the measurement does."""
    numbers = itertools.count()
    return [
        [load.task(f"job-{job}", number, _size_bytes(tasks)) for number in itertools.islice(numbers, tasks)]
        for job, tasks in enumerate(tasks_of)
    ]


def _size_bytes(tasks: int) -> int:
    """Of a disk of a job with so many, each of which takes its part of all that the rule allows."""
    return int(LIMIT_BYTES_PER_S * (WINDOW_S + 4 * SETTLING_S) / tasks) >> 20 << 20


if __name__ == "__main__":
    sys.exit(main())
