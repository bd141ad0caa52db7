"""`python -m benchmarks.traffic`: whether a rule of 80 Mbit/s holds, and how jobs share it.

Two real proxies with four slots each back up disks of random bytes into one repository on this machine, as 1, 3 and
8 tasks of 1, 2 and 3 jobs. What lands in the repository in half a minute is compared with the limit, and what each
job stored with an equal part. Exits with 1 when a promise isn't kept.

With `--gateway` the repository is behind one, and packs are sent after they are made: what lands there is compared
with the limit, and not told apart by jobs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.far import HERE, PROXY, certify, gateway, identity
from benchmarks.process import folder_bytes
from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.specification import (
    DiskAddress,
    DiskBackup,
    DiskIdentity,
    RepositoryReference,
    TransportPreference,
    VmIdentity,
)
from proxy_worker.ledger import Flow, TaskVerdict, Timings, Traffic
from proxy_worker.repository.repository import Repository, new_run_id
from proxy_worker.repository.store.local import LocalStore
from tests.tasks.fleet import Fleet, wait_until

LIMIT_BYTES_PER_S: Final = 10_000_000
"""80 Mbit/s."""
PROXIES: Final = ("proxy-1", "proxy-2")
SCENES: Final = ((1,), (2, 1), (5, 2, 1))
"""Tasks of each job."""
WINDOW_S: Final = 30.0
SETTLING_S: Final = 6.0
"""Until the last that began has its share."""
HELD_WITHIN, SHARED_WITHIN = 0.05, 0.10


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__)
    parser.add_argument("--gateway", action="store_true", help="into a repository behind a gateway")
    parser.add_argument("--work", type=Path, help="where to put about 1 GiB; a temporary folder unless told")
    options = parser.parse_args()
    table = Table("tasks", "jobs", "MB/s in all", "of the limit", "jobs' parts of an equal one", "holds")
    kept = True
    for tasks_of in SCENES:
        with (
            tempfile.TemporaryDirectory(prefix="traffic-", dir=options.work) as work,
            behind_gateway(Path(work)) if options.gateway else nullcontext() as location,
        ):
            rate, parts = _measure(Path(work), tasks_of, location)
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
def behind_gateway(work: Path) -> Iterator[str]:
    """Offer `work/far`; what names it."""
    certify(work)
    with gateway(work, work) as port:
        yield f"proxyfleet://{HERE}:{port}/far"


def _measure(work: Path, tasks_of: Sequence[int], location: str | None) -> tuple[float, list[float]]:
    """Bytes per second that landed in the repository, and what each job stored of an equal part."""
    valkey = EmbeddedValkey(work, "benchmark").start()
    fleet = Fleet(work, valkey, Timings())
    try:
        store = LocalStore(work / "far")
        store.prepare()
        Repository.create(store, passphrase=None).close()
        repository = RepositoryReference(name="remote", location=location or store.location)
        _start_proxies(fleet)
        jobs = [[_start(fleet, repository, job, tasks) for _ in range(tasks)] for job, tasks in enumerate(tasks_of)]
        everything = [task for tasks in jobs for task in tasks]
        wait_until(lambda: all(_stored(fleet, [task]) for task in everything), "all tasks store", 120)
        time.sleep(SETTLING_S)
        before, began_s = [_stored(fleet, tasks) for tasks in jobs], time.monotonic()
        before_bytes = folder_bytes(work / "far")
        time.sleep(WINDOW_S)
        seconds = time.monotonic() - began_s
        landed_bytes = folder_bytes(work / "far") - before_bytes
        stored = [_stored(fleet, tasks) - earlier for tasks, earlier in zip(jobs, before, strict=True)]
        for task in everything:
            fleet.ledger.set_verdict(task, TaskVerdict.CANCEL)
        in_all = sum(stored) or 1  # to a gateway everything may be made, and wait to be sent
        return landed_bytes / seconds, [one * len(jobs) / in_all for one in stored]
    finally:
        fleet.end()
        valkey.kill()


def _start_proxies(fleet: Fleet) -> None:
    (fleet.folder / "ds1").mkdir()
    shown = identity(fleet.folder, PROXY)
    files = {"certificate": shown.certificate, "key": shown.key, "ca_file": shown.ca_file}
    link = ["[link]", *(f'{key} = "{path}"' for key, path in files.items())]
    tables = [f'[datastores.ds1]\npath = "{fleet.folder / "ds1"}"', *(link if shown.certificate.exists() else [])]
    for name in PROXIES:
        fleet.add_proxy(name, slots=4, tables="\n".join(tables))
    fleet.start()
    flows = {Flow(TrafficKind.BACKUP, "remote", name): ["wan"] for name in PROXIES}
    fleet.ledger.set_traffic(Traffic({"wan": LIMIT_BYTES_PER_S}, flows))


def _start(fleet: Fleet, repository: RepositoryReference, job: int, tasks: int) -> str:
    """Begin a task of a job, on the proxy that has fewer; its disk is large enough for all of the measurement."""
    number = len(list((fleet.folder / "ds1").iterdir()))
    path = fleet.folder / "ds1" / f"{number}.img"
    size_bytes = int(LIMIT_BYTES_PER_S * (WINDOW_S + 4 * SETTLING_S) / tasks) >> 20 << 20
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(os.urandom(1 << 20))
    address = DiskAddress(datastore="ds1", path=path.name)
    body = DiskBackup(
        run=new_run_id(),
        job=f"job-{job}",
        vm=VmIdentity(vm_id=f"vm-{number}", name=f"vm-{number}"),
        disk=DiskIdentity(key="scsi0:0", address=address, size_bytes=size_bytes),
        transport=TransportPreference(),
        repository=repository,
    )
    task_id = fleet.submit(body)
    if fleet.dispatch(task_id, body, proxy=PROXIES[number % len(PROXIES)]) is None:
        raise RuntimeError(f"{task_id} was not dispatched")
    return task_id


def _stored(fleet: Fleet, tasks: Sequence[str]) -> int:
    fleet.ledger.reap()
    seen = fleet.ledger.view().tasks
    progress = [seen[task].progress for task in tasks]
    return sum(one.stored_bytes for one in progress if one is not None)


if __name__ == "__main__":
    sys.exit(main())
