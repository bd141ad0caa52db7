"""What an incremental of a large disk reads: what changed, rounded up to blocks, and the stated sample."""

from __future__ import annotations

import random
from pathlib import Path

from tests.system.vsphere_fleet import VMFS, vsphere_fleet
from tests.vsphere.machines import MIB, make_vm

DISK_BYTES = 20 << 30
BLOCK_BYTES = 256 << 10
CHANGED_BYTES = DISK_BYTES // 100 // MIB * MIB
SAMPLE_BYTES = max(64, DISK_BYTES // BLOCK_BYTES // 1000 + 1) * BLOCK_BYTES
"""0.1% of the blocks that vSphere calls unchanged, at least 64."""
JOB = """
[[job]]
name = "everything"
vms = ["large"]
repository = "main"
transport_mode = "network"
"""


def test_one_percent_of_20_gib_is_read_with_a_tenth_more_at_most(vsphere_program: Path, tmp_path: Path) -> None:
    chance = random.Random(20)
    with vsphere_fleet(tmp_path, vsphere_program, JOB) as (fleet, session):
        vm = make_vm(session, DISK_BYTES, name="large", datastore=VMFS)
        path = vm.disks[0].path or ""
        fleet.simulator.write(path, *[(at << 30, chance.randbytes(MIB)) for at in range(20)])
        fleet.command("scheduler", "job", "start", "everything", "--wait", timeout_s=200)
        clusters = chance.sample(range(DISK_BYTES // MIB), CHANGED_BYTES // MIB)
        for cluster in clusters:
            fleet.simulator.write(path, (cluster * MIB, chance.randbytes(MIB)))

        fleet.command("scheduler", "job", "start", "everything", "--wait", timeout_s=200)

        (disk,) = fleet.newest_run()["disks"]
        print(f"{CHANGED_BYTES / MIB:.0f} MiB changed, {disk['read_bytes'] / MIB:.0f} MiB read")
        assert disk["full_read_reason"] is None
        assert CHANGED_BYTES <= disk["read_bytes"] <= DISK_BYTES * 11 // 1000 + SAMPLE_BYTES
