"""The original of a replica, a VM of a simulated vCenter, and what a proxy does with it in a failback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pyVmomi import vim

from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRevert,
    ReplicaTarget,
)
from proxy_worker.contract.replication_outcome import DiskReplicateResult, ReplicaOpenResult
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, TransportPreference, VmIdentity, VsphereDisk
from proxy_worker.mover.control import Unattended
from proxy_worker.node.replicas import make_replica_point, mark_replica, open_replica, revert_replica
from proxy_worker.node.replication import send_disk
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.properties import read
from tests.node.vcenter_proxy import KEY, MIB, Proxy
from tests.vsphere.machines import make_vm

SIZE = 4 * MIB
BEFORE = "before-run-1"


@dataclass
class Original:
    """A VM of the vCenter, which a replica's changes are brought back to."""

    proxy: Proxy
    ref: str
    moved_from: ReplicaPlace | None = None
    """What proxies are told of where it is, if that isn't true any more."""

    @property
    def vm(self) -> Vm:
        return read_vm(self.proxy.session, self.ref)

    @property
    def machine(self) -> Any:
        return vim.VirtualMachine(self.ref, self.proxy.session.stub)

    @property
    def identity(self) -> VmIdentity:
        return VmIdentity(vm_id=(self.vm.instance_uuid or "").lower(), name=self.vm.name)

    @property
    def place(self) -> ReplicaPlace:
        if self.moved_from is not None:
            return self.moved_from
        found = {"datastore": "LocalDS_0", "uuid": self.identity.vm_id, "original": True}
        home = self.proxy.home.model_copy(update=found)
        return ReplicaPlace(datastore="vc1", folder=self.identity.vm_id, vsphere=home)

    @property
    def disk(self) -> DiskIdentity:
        """As the catalogue had it when it was replicated."""
        (disk,) = self.vm.disks
        address = VsphereDisk(
            vcenter=self.proxy.home.vcenter,
            vm=self.ref,
            key=disk.key,
            path=disk.path or "",
            uuid=disk.uuid,
            controller=disk.controller,
            datastore_type="VMFS",
        )
        return DiskIdentity(key=disk.place, address=DiskAddress(vsphere=address), size_bytes=disk.size_bytes)

    @property
    def content(self) -> bytes:
        (disk,) = (found for found in self.proxy.simulator.disks() if found.vm == self.ref)
        return disk.file.read_bytes()

    @property
    def settings(self) -> dict[str, str]:
        """Its extra configuration."""
        (found,) = read(self.proxy.session, [self.machine], ["config.extraConfig"])
        return {entry.key: entry.value for entry in found["config.extraConfig"] or () if entry.value}

    def write(self, offset: int, content: bytes) -> None:
        """As its guest does."""
        self.proxy.simulator.write(self.vm.disks[0].path or "", (offset, content))

    def open(self, disk: DiskIdentity | None = None) -> ReplicaOpenResult:
        body = ReplicaOpen(replica=self.place, vm=self.identity, mapped=True, disks=(disk or self.disk,))
        return open_replica(body, self.proxy.bench, self.proxy.claim(), Unattended())

    def keep(self) -> None:
        body = ReplicaPoint(replica=self.place, vm=self.identity, run=BEFORE, disks=(self.disk,))
        make_replica_point(body, self.proxy.bench, self.proxy.claim(), Unattended())

    def receive(self, source: ReplicaPlace | None = None) -> DiskReplicateResult:
        """What lies in the folder; or, of a `source`, what a replica in the vCenter holds."""
        path = DiskAddress(datastore="vc1", path=f"{self.identity.vm_id}/{KEY}")
        target = ReplicaTarget(
            place=self.place,
            disk=DiskIdentity(key=KEY, address=path, size_bytes=SIZE),
            original=self.identity.vm_id,
        )
        return send(self.proxy, target, source)

    def revert(self) -> None:
        body = ReplicaRevert(replica=self.place, run=BEFORE, condition=ReplicaCondition.STANDBY)
        revert_replica(body, self.proxy.bench, self.proxy.claim(), Unattended())

    def mark(self, condition: ReplicaCondition) -> None:
        body = ReplicaMark(replica=self.place, condition=condition)
        mark_replica(body, self.proxy.bench, self.proxy.claim(), Unattended())


def send(proxy: Proxy, target: ReplicaTarget, source: ReplicaPlace | None) -> DiskReplicateResult:
    """Have a disk written."""
    in_folder = DiskAddress(datastore="ds-near", path="web01/web01.raw")
    body = DiskReplicate(
        job="away",
        run="run-1",
        session="here",
        vm=VmIdentity(vm_id=target.original or "", name="original"),
        disk=DiskIdentity(key=KEY, address=in_folder if source is None else proxy.disk.address),
        source=source,
        transport=TransportPreference(),
        target=target,
    )
    return send_disk(body, proxy.bench, proxy.claim(), Unattended())


@pytest.fixture
def original(proxy: Proxy) -> Original:
    made = Original(proxy, make_vm(proxy.session, SIZE, track_changes=True).ref)
    made.write(MIB, b"as it was")
    return made
