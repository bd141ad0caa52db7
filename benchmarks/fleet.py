"""The fleet's rows: the reference disk through a whole fleet, and what a task costs on top of its data.

A fresh fleet of real processes for each round: Valkey, the scheduler with its own proxy, three proxies with two
slots each, all on this machine, with an empty repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.rounds import warm
from benchmarks.second_day import ReferenceDisks
from benchmarks.standalone import Repository
from ops.demo.errors import DemoError
from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, flat_path, make_machines
from tests.system.live_fleet import LiveFleet

MIB = 1 << 20
TINY_MACHINES, DISKS_EACH = 100, 5
TINY_CONTENT_BYTES = 64 << 10
PROXIES = tuple(ProxyPlace(f"proxy-{number}", "primary", "ds") for number in (1, 2, 3))
JOBS = """
[[job]]
name = "reference"
vms = ["reference"]
repository = "main"
[[job]]
name = "tiny"
vms = ["tiny*"]
repository = "main"
"""


class FleetFailedError(Exception):
    """The fleet did not start, or a run of it did not succeed."""


def measure(disks: ReferenceDisks, state: Path) -> dict[str, float]:
    """Seconds that the reference disk takes more than standalone, and seconds for each of 500 tiny disks."""
    alone = Repository(state.with_name("alone"))
    alone.init()
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    _make_machines(disks, state)
    try:
        with LiveFleet(state, PROXIES, JOBS) as fleet:
            warm(disks.first)
            standalone_s = alone.back_up(disks.first)[0].wall_s
            reference_s = _timed_run(fleet, "reference", 1)
            tiny_s = _timed_run(fleet, "tiny", TINY_MACHINES * DISKS_EACH)
    except (AssertionError, DemoError, subprocess.TimeoutExpired) as error:
        raise FleetFailedError(f"the fleet in {state}: {error}") from error
    return {
        "fleet_s": reference_s,
        "fleet_extra_s": reference_s - standalone_s,
        "fleet_tiny_s": tiny_s,
        "fleet_task_s": tiny_s / (TINY_MACHINES * DISKS_EACH),
    }


def _make_machines(disks: ReferenceDisks, state: Path) -> None:
    reference = Machine("reference", "ds", (Disk("scsi0:0", disks.size_bytes // MIB, 0, filesystem=False),))
    tiny = tuple(
        Machine(f"tiny{number:03d}", "ds", tuple(Disk(f"scsi0:{unit}", 1, 0, False) for unit in range(DISKS_EACH)))
        for number in range(TINY_MACHINES)
    )
    datastores = state / "datastores"
    make_machines((reference, *tiny), datastores, state / "scratch")
    big = flat_path(datastores / "ds" / "reference", reference.disks[0])
    big.unlink()
    big.hardlink_to(disks.first)
    for machine in tiny:
        for disk in machine.disks:
            with flat_path(datastores / "ds" / machine.name, disk).open("r+b") as file:
                file.write(os.urandom(TINY_CONTENT_BYTES))


def _timed_run(fleet: LiveFleet, job: str, disks: int) -> float:
    """Start a job, wait for its commit, and return the seconds that the command took."""
    started_s = time.monotonic()
    output = fleet.command("scheduler", "job", "start", job, "--wait", "--json", timeout_s=900)
    seconds = time.monotonic() - started_s
    run = json.loads(output)
    done = [disk for disk in run["disks"] if disk["state"] == "succeeded"]
    if len(done) != disks:
        raise FleetFailedError(f"{len(done)} of {disks} disks succeeded: {output[:2000]}")
    return seconds
