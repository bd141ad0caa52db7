"""Whatever is hurt, whenever: no disk lost, none committed twice, no limit exceeded, no slot leaked, no stale write
accepted, every restore equal, also after what interrupted writes left has been collected.

The short form runs one job; `make chaos MINUTES=…` goes on with changed disks until time is up. CHAOS_SEED repeats
the same choices. Leases, deadlines and heartbeats are those that are shipped.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

from sqlalchemy import select

from ops.demo.machines import Disk, Machine, change
from scheduler.state.models import RunState, VmRun, VmRunState
from tests.surviving.faults import Faults
from tests.surviving.fleet import HurtFleet
from tests.surviving.watching import Watch, recovery_table
from tests.system.live_fleet import explained, wait_until

MINUTES: Final = float(os.environ.get("CHAOS_MINUTES", "0"))
PROXIES: Final = tuple(f"proxy-{number}" for number in range(1, 6))
SLOTS: Final = 2
CAP: Final = 9
"""One less than there are slots."""
POISON: Final = Machine("poison", "ds", (Disk("scsi0:0", 16, 8, filesystem=False),))
"""Its disk kills every process that opens it."""
MACHINES: Final = tuple(
    Machine(f"vm{number:02d}", "ds", tuple(Disk(f"scsi0:{unit}", 24, 8, filesystem=False) for unit in range(2)))
    for number in range(20 if MINUTES else 8)
)
FAULTS_S: Final = 75.0 if MINUTES else 14.0
NBD_MIB_S: Final = 1 if MINUTES else 3
"""So slow that a disk takes long enough to be hit."""
REPOSITORY_MIB: Final = 1024 if MINUTES else 256
JOBS: Final = """
[[job]]
name = "everything"
vms = ["vm*", "poison"]
repository = "main"
transport_mode = "network"
retries = { count = 30, wait_minutes = 0.02 }
retention = { points = 1000 }
"""
RETRIES: Final = 4
"""How often a run whose repository was full is retried by hand."""


def test_five_proxies_survive_everything(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", str(random.randrange(1 << 32))))
    end = time.monotonic() + 60 * MINUTES
    print(f"CHAOS_SEED={seed}")
    source = random.Random(seed)
    faults: Counter[str] = Counter()
    machines = (*MACHINES, POISON)
    fleet = HurtFleet(
        tmp_path, machines, PROXIES, JOBS, nbd_mib_s=NBD_MIB_S, cap=CAP, repository_mib=REPOSITORY_MIB
    )
    with fleet, explained(fleet), Watch(fleet, cap=CAP) as watch:
        fleet.poison(POISON, POISON.disks[0])
        repository = (str(fleet.real_repository), "--passphrase-file", str(fleet.layout.passphrase))
        rounds, tasks = 0, 0
        while rounds == 0 or time.monotonic() < end:
            if rounds:
                for machine, disk in fleet.disks:
                    change(machine, disk, fleet.layout.datastores, tmp_path / "scratch", day=rounds)
            faults += _back_up_under_fire(fleet, watch, source)
            rounds += 1
            tasks += len(fleet.disks)
            fleet.command("proxy-worker", "repository", "collect", *repository)
            assert watch.exceeded == []
            assert max(watch.most.values()) <= SLOTS, f"disks at once: {watch.most}"
            fleet.assert_safe({machine.name: rounds for machine in MACHINES}, but=POISON)
        refused = fleet.view().refused_fences
        fleet.command("proxy-worker", "repository", "check", *repository)
    print(
        f"{rounds} rounds, {tasks} disks, {faults.total()} faults; {refused} stale calls refused by the last ledger"
    )
    for kind, count in sorted(faults.items()):
        print(f"  {kind}: {count}")
    print(f"most disks at once: {dict(watch.most)}, at the repository {watch.most_in_all} of {CAP}")
    print(recovery_table(watch.recoveries_s))


def _back_up_under_fire(fleet: HurtFleet, watch: Watch, source: random.Random) -> Counter[str]:
    run = fleet.begin_run()
    began = time.monotonic()
    with Faults(fleet, watch, source, for_s=FAULTS_S, lasting=MINUTES > 0) as faults:
        wait_until(lambda: faults.over, "the faults to end", timeout_s=FAULTS_S + 200, every_s=0.5)
    state = fleet.end_run(run, timeout_s=240, each_look=fleet.revive)
    for _ in range(RETRIES):
        if _without_point(fleet, run).keys() == {POISON.name}:
            break
        fleet.command("scheduler", "run", "retry", run)
        state = fleet.end_run(run, timeout_s=240, each_look=fleet.revive, from_final=True)
    print(f"faults {faults.counts.total()}, run {state.value} after {time.monotonic() - began:.0f} s", flush=True)
    failed = [disk for disk in fleet.disks_of(run) if disk.state.value != "succeeded"]
    assert state is RunState.PARTLY_FAILED
    without = _without_point(fleet, run)
    assert without.keys() == {POISON.name}, f"all but the poisoned VM have a restore point: {without}"
    assert [disk.failure.code for disk in failed if disk.failure is not None] == ["quarantined"], failed
    assert failed[0].failure is not None
    assert failed[0].failure.log, "with what it wrote last"
    return faults.counts


def _without_point(fleet: HurtFleet, run: str) -> dict[str, str | None]:
    """The VMs that a run gave no restore point, and why."""
    unsuccessful = select(VmRun).where(VmRun.run_id == run, VmRun.state != VmRunState.SUCCEEDED)
    with fleet.database.read() as session:
        return {vm_run.name: vm_run.reason for vm_run in session.scalars(unsuccessful)}
