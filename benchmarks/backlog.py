"""`python -m benchmarks.backlog`: what a turn of the scheduler costs while many disks wait.

A real database and a real Valkey, proxies that move no data. A turn in which nothing happened, and one after a
hundred disks have ended, beside 10,000 and 100,000 disks that wait. Exits with 1 when ten times as many make
a turn more than twice as dear.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import CompressionLevel, TransportMode
from proxy_worker.contract.subjects import DiskAddress, RepositoryReference
from proxy_worker.ledger import Ledger
from scheduler.runs.tasks import backup_task
from scheduler.service import Service
from scheduler.state.models import Datastore, DiskTask, Priority, Repository, Run, RunState, Site, VmRun
from scheduler.state.store import State, open_state
from tests.simulators.proxies import Lanes, SimulatedFleet

WAITING: Final = (10_000, 100_000)
JOBS: Final = 10
DISKS_OF_A_VM: Final = 4
PROXIES: Final = 25
SLOTS: Final = 8
ENDED: Final = 100
"""Disks between two turns."""
TURNS: Final = 7
DEARER_AT_MOST: Final = 2.0


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("waiting", type=int, nargs="*", default=WAITING, help="how many disks wait")
    table = Table("disks", "first turn s", "idle turn ms", f"turn after {ENDED} ended ms", "view ms", "Valkey MiB")
    turns: list[float] = []
    for disks in parser.parse_args().waiting:
        with tempfile.TemporaryDirectory(prefix="backlog-") as work:
            first, idle, busy, view, memory = _measure(Path(work), disks)
        turns.append(idle + busy)
        table.add_row(
            f"{disks:,}", f"{first:.1f}", *(f"{1000 * s:.0f}" for s in (idle, busy, view)), f"{memory:.0f}"
        )
    Console().print(table)
    return int(turns[-1] > DEARER_AT_MOST * turns[0])


def _measure(work: Path, disks: int) -> tuple[float, float, float, float, float]:
    state = open_state(f"sqlite:///{work / 'scheduler.db'}", migrate=True)
    _declare(state, disks)
    with EmbeddedValkey(work, "secret") as valkey, Ledger(valkey.url, password=valkey.password) as ledger:
        lanes = Lanes()
        fleet = SimulatedFleet(ledger, lanes, {"ds1": ()})
        ahead_s = 0.0
        key = Ed25519PrivateKey.generate()
        service = Service(state, ledger, lanes.publish, key, clock=lambda: time.time() + ahead_s)
        service.attach()
        service.load()
        for number in range(PROXIES):
            fleet.join(f"proxy-{number}", slots=SLOTS, datastores={"ds1": (TransportMode.NETWORK,)})
        first = _took(service.turn)
        idle, busy = [], []
        for _ in range(TURNS):
            service.turn()
            ahead_s += 10  # so that it looks at everything though nothing has happened
            idle.append(_took(service.turn))
            fleet.work(ENDED)
            busy.append(_took(service.turn))
        view = statistics.median(_took(ledger.view) for _ in range(TURNS))
        with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
            memory = client.info("memory")["used_memory"] / 2**20
    state.close()
    return first, statistics.median(idle), statistics.median(busy), view, memory


def _took(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _declare(state: State, disks: int) -> None:
    """Runs of several jobs, all of whose disks are to be read."""
    now = time.time()
    address = DiskAddress(datastore="ds1", path="a.vmdk")
    repository = RepositoryReference(name="main", location="/backup", credential="main")
    with state.write() as session:
        session.add(Site(name="primary"))
        session.flush()
        session.add(Repository(name="main", location="/backup", site="primary", credential="main", prove_days=0))
        session.add(Datastore(name="ds1", site="primary"))
        runs = [_run(number, now) for number in range(JOBS)]
        session.add_all(runs)
        session.flush()
        for number in range(disks // DISKS_OF_A_VM):
            run = runs[number % JOBS]
            vm = VmRun(id=f"vm-{number}", run_id=run.id, vm_id=f"id-{number}", name=f"vm-{number}", attempt=1)
            vm.started_at, vm.repository_run = now, f"point-{number}"
            session.add(vm)
            for key in range(DISKS_OF_A_VM):
                disk = DiskTask(
                    id=f"{vm.id}.{key}", vm_run_id=vm.id, run_id=run.id, disk_key=f"scsi0:{key}", tries=1
                )
                disk.address, disk.size_bytes = address, (1 + number % 50) << 30
                session.add_all([disk, backup_task(run, vm, disk, repository, now, configuration=False)])


def _run(number: int, now: float) -> Run:
    return Run(
        id=f"run-{number}",
        job=f"job-{number}",
        state=RunState.RUNNING,
        created_at=now,
        started_at=now,
        repository="main",
        level=CompressionLevel.OPTIMAL,
        transport_mode="automatic",
        failover_to_network=True,
        priority=Priority.REGULAR,
        retry_count=3,
        retry_wait_seconds=60.0,
        vms=("*",),
    )


if __name__ == "__main__":
    sys.exit(main())
