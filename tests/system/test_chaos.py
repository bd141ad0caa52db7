"""Whatever is killed, whenever: every disk is committed once, no proxy exceeds its slots, every restore is right.

The short form runs one job; `make chaos MINUTES=…` goes on with changed disks until time is up. CHAOS_SEED repeats
the same choices.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, change, flat_path, make_machines
from tests.system.killing import Killer, Witness
from tests.system.live_fleet import LiveFleet, explained, wait_until

MACHINES = tuple(
    Machine(f"vm{number:02d}", "ds", tuple(Disk(f"scsi0:{unit}", 24, 8, filesystem=False) for unit in range(4)))
    for number in range(10)
)
DISKS = [(machine, disk) for machine in MACHINES for disk in machine.disks]
PROXIES = tuple(ProxyPlace(f"proxy-{number}", "primary", "ds") for number in (1, 2, 3))
SLOTS = 2
KILLING_S = 25.0
JOBS = """
[[job]]
name = "everything"
vms = ["vm*"]
repository = "main"
transport_mode = "network"
retries = { count = 20, wait_minutes = 0.02 }
"""
NBD_MIB_S = 3
"""So slow that a disk takes long enough to be hit."""


def test_forty_disks_on_three_proxies_survive_random_kills(tmp_path: Path) -> None:
    assert len(DISKS) == 40
    seed = int(os.environ.get("CHAOS_SEED", str(random.randrange(1 << 32))))
    end = time.monotonic() + 60 * float(os.environ.get("CHAOS_MINUTES", "0"))
    print(f"CHAOS_SEED={seed}")
    source = random.Random(seed)
    datastores = tmp_path / "datastores"
    make_machines(MACHINES, datastores, tmp_path / "scratch")
    with LiveFleet(tmp_path, PROXIES, JOBS, nbd_mib_s=NBD_MIB_S) as fleet, explained(fleet):
        rounds = 0
        while rounds == 0 or time.monotonic() < end:
            if rounds:
                for machine, disk in DISKS:
                    change(machine, disk, datastores, tmp_path / "scratch", day=rounds)
            _back_up_under_fire(fleet, source)
            rounds += 1
            _assert_committed_once(fleet, rounds)
            _assert_restores_equal_sources(fleet, datastores, tmp_path / "restored")


def _back_up_under_fire(fleet: LiveFleet, source: random.Random) -> None:
    with Witness(fleet) as witness:
        fleet.command("scheduler", "job", "start", "everything")
        wait_until(lambda: fleet.newest_run()["state"] == "running", "the run to be planned", timeout_s=60)
        with Killer(fleet, source, for_s=KILLING_S) as killer:
            wait_until(lambda: _ended(fleet, killer), "the run to end", timeout_s=KILLING_S + 240, every_s=1.0)
    run = fleet.newest_run()
    print(
        f"kills {dict(killer.kills)}, most disks at once {dict(witness.most)}, run {run['duration_seconds']:.0f} s"
    )
    assert run["state"] == "succeeded", run
    assert [disk["state"] for disk in run["disks"]] == ["succeeded"] * len(DISKS)
    assert killer.kills.total() >= 5, "too few kills to show anything"
    assert any(disk["attempts"] > 1 for disk in run["disks"]), "no kill hit a running disk"
    assert max(witness.most.values()) == SLOTS, f"a proxy read {witness.most} disks at once"


def _ended(fleet: LiveFleet, killer: Killer) -> bool:
    if killer.over:
        fleet.revive()
    return fleet.newest_run()["state"] not in {"requested", "scanning", "running"}


def _assert_committed_once(fleet: LiveFleet, rounds: int) -> None:
    repository = (str(fleet.layout.repository), "--passphrase-file", str(fleet.layout.passphrase))
    points = fleet.read_json("proxy-worker", "repository", "list", *repository, "--json")
    assert Counter(point["vm"] for point in points) == {machine.name: rounds for machine in MACHINES}
    assert all(len(point["disks"]) == len(MACHINES[0].disks) for point in points)
    fleet.command("proxy-worker", "repository", "check", *repository)


def _assert_restores_equal_sources(fleet: LiveFleet, datastores: Path, folder: Path) -> None:
    def restored_differs(number: int) -> bool:
        machine, disk = DISKS[number]
        target = folder / f"{number}.img"
        target.unlink(missing_ok=True)
        fleet.command(
            *("proxy-worker", "restore", "--repository", str(fleet.layout.repository)),
            *("--passphrase-file", str(fleet.layout.passphrase), "--vm", machine.name, "--disk", disk.key),
            *("--to", str(target)),
        )
        return _sha256(target) != _sha256(flat_path(datastores / machine.datastore / machine.name, disk))

    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        differing = [DISKS[number] for number, wrong in enumerate(pool.map(restored_differs, range(40))) if wrong]
    assert differing == []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
