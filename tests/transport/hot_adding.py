"""A proxy that is a VM of the simulated vCenter, and a VM whose disks it may hot-add."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.subjects import DiskAddress, VcenterReference, VsphereDisk
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import hot_add
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, Quiesce, Snapshot, create, remove
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.guest import SimulatedGuest
from tests.simulators.vsphere.simulator import PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT, certificate_of
from tests.vsphere.machines import MIB, make_vm, write


def reconfigure(session: Session, vm: Vm, **changes: Any) -> None:
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "test", lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(**changes)), IMPATIENT)


def show_uuids(session: Session, vm: Vm, *, shown: bool = True) -> None:
    reconfigure(session, vm, flags=vim.vm.FlagInfo(diskUuidEnabled=shown))
    assert read_vm(session, vm.ref).shows_disk_uuids is shown


@pytest.fixture
def proxy(session: Session) -> Vm:
    """The proxy's own VM, with one disk."""
    vm = make_vm(session, MIB)
    show_uuids(session, vm)
    return vm


@pytest.fixture
def guest(vsphere: VsphereSimulator, proxy: Vm, tmp_path: Path) -> Iterator[SimulatedGuest]:
    with SimulatedGuest(vsphere, proxy.ref, tmp_path / "by-id") as seen:
        yield seen


@pytest.fixture
def access(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, guest: SimulatedGuest, tmp_path: Path
) -> VsphereAccess:
    """The proxy's way to vCenter."""
    (tmp_path / "vc1.password").write_text(PASSWORD)
    bios = read(session, [vim.VirtualMachine(proxy.ref, session.stub)], ["config.uuid"])[0]["config.uuid"]
    offer = VsphereOffer(modes=(TransportMode.VIRTUAL_APPLIANCE,), passwords=("vc1",), product_uuid=bios)
    return VsphereAccess(
        secrets_dir=tmp_path, state_dir=tmp_path / "state", offer=offer, guest_disks_dir=guest.folder
    )


class Source:
    """A VM to be backed up, with a snapshot that froze its disks."""

    def __init__(self, vsphere: VsphereSimulator, session: Session, sizes: tuple[int, ...]) -> None:
        self.session = session
        self.vcenter = VcenterReference(
            name="vc1",
            host=vsphere.host,
            port=vsphere.port,
            user=USER,
            credential="vc1",
            thumbprint=hashlib.sha256(certificate_of(vsphere)).hexdigest(),
        )
        self.vm = make_vm(session, *sizes)
        self.content = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
        for one, content in zip(self.vm.disks, self.content, strict=True):
            write(vsphere, one.path or "", 0, content)
        self.snapshot: Snapshot = create(
            session, read_vm(session, self.vm.ref), Mark("installation-h", "run-1"), Quiesce.NEVER, IMPATIENT
        )
        for one in self.vm.disks:
            write(vsphere, one.path or "", 4096, b"written after the snapshot")

    def address(self, number: int = 0, **changes: object) -> DiskAddress:
        one = self.snapshot.disks[number]
        settings: dict[str, object] = {
            "vcenter": self.vcenter,
            "vm": self.vm.ref,
            "snapshot": self.snapshot.ref,
            "key": one.key,
            "path": one.path,
            "uuid": one.uuid,
            "controller": one.controller,
            "datastore_type": "VMFS",
        }
        return DiskAddress(vsphere=VsphereDisk.model_validate(settings | changes))

    def thaw(self) -> bool:
        return remove(self.session, self.vm.ref, self.snapshot.ref, "installation-h", IMPATIENT)


@pytest.fixture
def source(vsphere: VsphereSimulator, session: Session) -> Source:
    return Source(vsphere, session, (3 * MIB, 2 * MIB + 512))


def hanging(session: Session, proxy: Vm) -> set[str]:
    """What is attached to the proxy's VM besides its own disk."""
    return {one.path for one in hot_add.attached(session, proxy.ref)} - {one.path or "" for one in proxy.disks}
