"""The parts in a row, as a backup uses them: changed areas on top of the last backup are the disk, every time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import DiskAddress, Extent
from proxy_worker.transport.connections import DatastoreConnection
from proxy_worker.transport.network import open_network
from proxy_worker.vsphere.changed_blocks import ChangeBase, FullRead, areas_in_use, base_of, changes_since, enable
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.identity import problem_of, split_path
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, Snapshot, create, left_behind, remove
from tests.simulators.vsphere.simulator import NBDKIT, PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm, write

INSTALLATION = "installation-story"


@pytest.fixture
def vddk(vsphere: VsphereSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The network command that an administrator with VDDK configures, without the disk."""
    (tmp_path / "vc1.password").write_text(PASSWORD)
    monkeypatch.setenv("SIMULATED_VDDK_DISKS", str(vsphere.frozen))
    monkeypatch.setenv("SIMULATED_VDDK_PASSWORD", PASSWORD)
    thumbprint = ":".join(["AB"] * 20)
    command = (str(NBDKIT), "--foreground", "--readonly", "--unix", "{socket}", "vddk", f"server={vsphere.host}")
    return (*command, f"user={USER}", f"password=+{tmp_path}/vc1.password", f"thumbprint={thumbprint}")


def read_over(
    image: bytearray, vddk: tuple[str, ...], snapshot: Snapshot, disk: VirtualDisk, areas: tuple[Extent, ...]
) -> None:
    """Read these areas of a snapshot's disk in network mode, over `image`."""
    command = (*vddk, f"vm=moref={snapshot.vm}", f"snapshot={snapshot.ref}", "file=[LocalDS_0] {vmdk}")
    connection = DatastoreConnection(network_command=command)
    datastore, path = split_path(disk.path or "")
    with open_network(DiskAddress(datastore=datastore, path=path), connection, reason="test") as source:
        assert source.size_bytes == len(image)
        for area in areas:
            source.read_into(area.offset, memoryview(image)[area.offset : area.offset + area.length])


def test_a_chain_of_incrementals_is_the_disk_each_time(
    vsphere: VsphereSimulator, session: Session, vddk: tuple[str, ...]
) -> None:
    vm, chance = make_vm(session, 4 * MIB, 2 * MIB + 512), random.Random(7)
    assert problem_of(read_inventory(session), vm) is None
    enable(session, vm, IMPATIENT)
    images = {disk.place: bytearray(disk.size_bytes) for disk in vm.disks}
    bases: dict[str, ChangeBase | None] = {}
    for day in range(4):
        for disk in vm.disks:
            for _ in range(3):
                at = chance.randrange(disk.size_bytes - 4096)
                write(vsphere, disk.path or "", at, chance.randbytes(chance.randrange(1, 4096)))
        if day == 2:
            vsphere.reset_change_tracking(vm.ref)
        made = create(session, read_vm(session, vm.ref), Mark(INSTALLATION, f"day-{day}"), waiting=IMPATIENT)
        for disk in made.disks:
            found = changes_since(session, vm.ref, made.ref, disk, bases.get(disk.place))
            if day in {0, 2}:
                assert found.full_read is (FullRead.FIRST if day == 0 else FullRead.RESET)
                images[disk.place] = bytearray(disk.size_bytes)
                found = areas_in_use(session, vm.ref, made.ref, disk)
            assert found.areas
            read_over(images[disk.place], vddk, made, disk, found.areas)
            bases[disk.place] = base_of(disk)
            frozen = vsphere.frozen / made.ref / (disk.path or "").replace("[", "").replace("] ", "/")
            assert images[disk.place] == frozen.with_name(f"{frozen.stem}-flat.vmdk").read_bytes()
        assert remove(session, vm.ref, made.ref, INSTALLATION, IMPATIENT)
    assert left_behind(read_inventory(session), INSTALLATION) == ()
