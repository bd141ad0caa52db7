"""Many VMs of a vCenter through three proxies: a full run and two incrementals, while guests go on writing.

Every disk of every restore point is what its snapshot froze; nothing is left in the vCenter or on the proxies; and
the calls that vCenter gets for a VM don't depend on how many there are. `make vsphere-scale` does it with 200 VMs
and 500 disks (VSPHERE_SCALE_VMS).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.mover.control import Unattended
from proxy_worker.mover.restore import restore_disk
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from tests.system.live_fleet import wait_until
from tests.system.vsphere_fleet import NFS, VMFS, VsphereFleet, mounts_of, snapshots_of_ours, vsphere_fleet
from tests.vsphere.machines import MIB, controller, disk, make_vm

VMS = int(os.environ.get("VSPHERE_SCALE_VMS", "8"))
DISK_BYTES = 40 * MIB
SAMPLE_BYTES = 64 * 256 << 10
"""What an incremental reads again of a disk this small, to see whether what vSphere calls unchanged is."""
SEED = int(os.environ.get("VSPHERE_SCALE_SEED", "3"))
CALLS_PER_VM = 32
"""Of a VM with three disks: snapshot, its disks, areas, removal, configuration. However many VMs there are."""
CALLS_PER_HOT_ADDED_DISK = 16
"""To find the proxy's VM, attach and detach."""
CALLS_FOR_ALL = 80
"""Logins and inventory, in pages of 500 objects, and what belongs to no VM."""
JOB = """
[[job]]
name = "everything"
vms = ["scale-*"]
repository = "main"
retries = { count = 1, wait_minutes = 0.02 }
"""


def make_vms(session: Session, number: int) -> list[Vm]:
    """Two disks and three in turns, of which one can't be hot-added: 500 with 200 VMs; half on each datastore."""
    made = []
    for at in range(number):
        name, datastore = f"scale-{at:03d}", (VMFS, NFS)[at // 2 % 2]
        ide = [controller("ide", 200), disk((200, 0), DISK_BYTES, f"[{datastore}] {name}/ide.vmdk")]
        made.append(
            make_vm(session, DISK_BYTES, DISK_BYTES, name=name, datastore=datastore, devices=ide * (at % 2))
        )
    return made


def scribble(fleet: VsphereFleet, vms: Sequence[Vm], chance: random.Random) -> None:
    """Write something somewhere on every disk."""
    for vm in vms:
        for hit in vm.disks:
            pieces = [
                (chance.randrange(hit.size_bytes - 20_000), chance.randbytes(chance.randrange(1, 20_000)))
                for _ in range(3)
            ]
            fleet.simulator.write(hit.path or "", *pieces)


@contextmanager
def guests_that_write(fleet: VsphereFleet, vms: Sequence[Vm]) -> Iterator[None]:
    """Let guests write, whatever their VMs go through; so much in all that a slow machine changes no figure."""
    done = threading.Event()
    chance = random.Random(SEED + 1)

    def write() -> None:
        for _ in range(30 * len(vms)):
            if done.wait(0.01):
                return
            hit = chance.choice(chance.choice(vms).disks)
            fleet.simulator.write(hit.path or "", (chance.randrange(hit.size_bytes - 512), chance.randbytes(512)))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def back_up(fleet: VsphereFleet, vms: Sequence[Vm], title: str) -> dict[str, Any]:
    """Run the job while guests write; shows the run's figures."""
    fleet.simulator.reset()
    began = time.monotonic()
    with guests_that_write(fleet, vms):
        fleet.command("scheduler", "job", "start", "everything", "--wait", timeout_s=3600)
    run = fleet.newest_run()
    modes = Counter(disk["mode"] for disk in run["disks"])
    print(
        f"\n{title}: {len(vms)} VMs, {len(run['disks'])} disks in {time.monotonic() - began:.0f} s, "
        f"modes {dict(modes)}, read {run['read_bytes'] / MIB:.1f} MiB"
    )
    assert_few_calls(fleet, vms, modes["virtual_appliance"])
    return run


def assert_few_calls(fleet: VsphereFleet, vms: Sequence[Vm], hot_added: int) -> None:
    """The numbers must hold for twelve VMs and for two hundred."""
    by_vm = fleet.simulator.calls_by_vm()
    of_vms = {vm.name: by_vm.get(vm.ref, {}) for vm in vms}
    busiest = max(of_vms, key=lambda name: sum(of_vms[name].values()))
    per_vm = sum(of_vms[busiest].values())
    others = Counter(fleet.simulator.calls())
    for counted in of_vms.values():
        others.subtract(counted)
    print(f"calls of vCenter: at most {per_vm} for a VM ({dict(of_vms[busiest])}), besides {dict(+others)}")
    assert per_vm <= CALLS_PER_VM
    assert others.total() <= CALLS_FOR_ALL + CALLS_PER_HOT_ADDED_DISK * hot_added


def assert_all_is_well(run: Mapping[str, Any], vms: Sequence[Vm]) -> None:
    assert run["state"] == "succeeded", run
    assert Counter(vm["state"] for vm in run["vms"]) == {"succeeded": len(vms)}
    assert {disk["attempts"] for disk in run["disks"]} == {1}


def assert_nothing_is_left(fleet: VsphereFleet, session: Session, folder: Path) -> None:
    wait_until(lambda: snapshots_of_ours(session) == [], "all snapshots to be removed")
    assert [folder.name for folder in fleet.simulator.frozen.glob("snapshot-*")] == []
    assert len([disk for disk in fleet.simulator.disks() if disk.name == "proxy-3"]) == 1
    wait_until(lambda: fleet.nbdkits() == [], "every nbdkit to end")
    assert mounts_of(folder) == []


def assert_points_are_what_snapshots_froze(fleet: VsphereFleet, vms: Sequence[Vm], folder: Path) -> int:
    """Restore every disk of every point; returns how many there were."""
    folder.mkdir()
    layout = fleet.layout
    credential = load_credential(passphrase_file=layout.passphrase)
    wrong, compared = [], 0
    with Repository.open(LocalStore(layout.repository), credential, cache_dir=folder / "cache") as repository:
        points = repository.points()
        for vm in vms:
            mine = sorted((point for point in points if point.vm_name == vm.name), key=lambda point: point.sequence)
            for point, snapshot in zip(mine, snapshots_of(fleet, vm), strict=True):
                for disk in point.disks:
                    path = next(found.path for found in vm.disks if found.place == disk.key)
                    restored = restore(repository, point, disk.key, folder / f"{vm.name}-{point.run}-{disk.key}")
                    compared += 1
                    if restored != fleet.simulator.frozen_disk(snapshot, path or "").read_bytes():
                        wrong.append(f"{vm.name} {disk.key} of {point.run}")
    assert wrong == []
    return compared


def snapshots_of(fleet: VsphereFleet, vm: Vm) -> list[str]:
    """The VM's snapshots, all of them removed by now, oldest first."""
    path = vm.disks[0].path or ""
    names = [folder.name for folder in fleet.simulator.removed.iterdir()]
    mine = [name for name in names if fleet.simulator.frozen_disk(name, path).exists()]
    return sorted(mine, key=lambda name: int(name.rpartition("-")[2]))


def restore(repository: Repository, point: Point, key: str, target: Path) -> bytes:
    asked = DiskRestore(
        repository=RepositoryReference(name="main", location="/unused"),
        vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
        run=point.run,
        disk_key=key,
        target_path=str(target),
    )
    restore_disk(repository, asked, Unattended())
    content = target.read_bytes()
    target.unlink()
    return content


@pytest.mark.timeout(7200)
def test_every_restore_point_is_what_its_snapshot_froze(vsphere_program: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with vsphere_fleet(tmp_path, vsphere_program, JOB) as (fleet, session):
        vms = make_vms(session, VMS)
        scribble(fleet, vms, chance)
        full = back_up(fleet, vms, "full")
        assert_all_is_well(full, vms)
        assert {disk["mode"] for disk in full["disks"]} == {"direct_storage", "virtual_appliance", "network"}

        scribble(fleet, vms, chance)
        first = back_up(fleet, vms, "incremental")
        assert_all_is_well(first, vms)
        assert all(disk["full_read_reason"] is None for disk in first["disks"])
        assert max(disk["read_bytes"] for disk in first["disks"]) < SAMPLE_BYTES + 8 * MIB

        scribble(fleet, vms, chance)
        reset = {vm.name for vm in vms[::4]}
        for vm in vms[::4]:
            fleet.simulator.reset_change_tracking(vm.ref)
        second = back_up(fleet, vms, "incremental, every fourth VM's tracking reset")
        assert_all_is_well(second, vms)
        assert {disk["vm"] for disk in second["disks"] if disk["full_read_reason"]} == reset

        assert_nothing_is_left(fleet, session, tmp_path)
        disks = sum(len(vm.disks) for vm in vms)
        assert assert_points_are_what_snapshots_froze(fleet, vms, tmp_path / "restored") == 3 * disks
