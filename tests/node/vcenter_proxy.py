"""A proxy with a folder that an original lies in, and a simulated vCenter for its replica."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMachine,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    ReplicaTarget,
    VsphereHome,
)
from proxy_worker.contract.replication_outcome import DiskReplicateResult, ReplicaOpenResult
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    TransportPreference,
    VcenterReference,
    VmIdentity,
)
from proxy_worker.ledger import Claim, Fence
from proxy_worker.mover.control import Control, Unattended, Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.replicas import (
    make_replica_point,
    open_replica,
    remove_replica_point,
    revert_replica,
)
from proxy_worker.node.replication import send_disk
from proxy_worker.transport.inventory import scan_datastore
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.restored import find
from proxy_worker.vsphere.session import Endpoint, Session
from tests.node.benches import bench_of
from tests.simulators.vsphere.program import NBDKIT, PASSWORD, USER, VsphereSimulator

MIB = 1 << 20
BLOCK = 256 << 10
WEB01 = VmIdentity(vm_id="web01", name="web01")
KEY = "scsi0:0"
VMX = """\
displayName = "web01"
guestOS = "ubuntu-64"
numvcpus = "2"
memSize = "512"
nvram = "web01.nvram"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.raw"
ethernet0.present = "TRUE"
ethernet0.networkName = "production"
"""


RUNNING = Unattended()


class Stopped(Unattended):
    """A control that has lost its task."""

    def verdict(self) -> Verdict:
        return Verdict.STOP


class Proxy:
    """One with a folder that an original lies in, and a vCenter for its replica."""

    def __init__(self, folder: Path, simulator: VsphereSimulator, endpoint: Endpoint, session: Session) -> None:
        self.simulator, self.session = simulator, session
        near = folder / "ds-near"
        (near / "web01").mkdir(parents=True)
        (folder / "secrets").mkdir()
        (folder / "secrets/vc1.password").write_text(PASSWORD)
        self.root = folder
        self.bench = self._bench("proxy-1")
        self.original = near / "web01/web01.raw"
        self.original.write_bytes(random.Random(1).randbytes(2 * MIB) + bytes(2 * MIB))
        (near / "web01/web01.vmx").write_text(VMX)
        (near / "web01/web01.nvram").write_bytes(b"nvram")
        vcenter = VcenterReference(
            name="vc1",
            host=simulator.host,
            port=simulator.port,
            user=USER,
            credential="vc1",
            thumbprint=endpoint.trust.thumbprint,
        )
        uuid = str(uuid4())
        self.home = VsphereHome(vcenter=vcenter, datastore="LocalDS_0", uuid=uuid, mark="inst/replica-1")
        self.folder = f"web01_replica_{uuid[-12:]}"
        (found,) = scan_datastore("ds-near", near, machines=True)
        self.hardware = found.machine or ""
        self.size = 4 * MIB
        self.fence = 0

    def _bench(self, name: str) -> Bench:
        offer = VsphereOffer(modes=(TransportMode.NETWORK,), passwords=("vc1",))
        return bench_of(self.root, name=name, datastores={"ds-near": self.root / "ds-near"}, vsphere=offer)

    @contextmanager
    def another(self) -> Iterator[Proxy]:
        """A second proxy, which gets at the same."""
        other = copy.copy(self)
        other.bench = self._bench("proxy-2")
        yield other
        other.bench.vsphere.close()

    @property
    def place(self) -> ReplicaPlace:
        return ReplicaPlace(datastore="vc-ds", folder=self.folder, vsphere=self.home)

    @property
    def vm(self) -> Vm:
        return read_vm(self.session, find(self.session, self.home.uuid) or "")

    @property
    def content(self) -> bytes:
        """What the replica's disk holds now."""
        path = self.vm.disks[0].path or ""
        store, _, name = path.removeprefix("[").partition("] ")
        return (self.simulator.datastores[store] / name.replace(".vmdk", "-flat.vmdk")).read_bytes()

    @property
    def points(self) -> list[str]:
        return list(replica_vm.points_of(self.vm, self.home.mark))

    def open(self, control: Control = RUNNING) -> ReplicaOpenResult:
        disk = self.disk.model_copy(update={"size_bytes": self.size})
        networks = {"production": "VM Network", "another VM's": "VM Network"}
        machine = ReplicaMachine(hardware=self.hardware, networks=networks, disks=(disk,))
        body = ReplicaOpen(replica=self.place, vm=WEB01, machine=machine)
        return open_replica(body, self.bench, self.claim(), control)

    @property
    def disk(self) -> DiskIdentity:
        path = f"{self.folder}/{self.folder}.vmdk"
        return DiskIdentity(key=KEY, address=DiskAddress(datastore="vc-ds", path=path))

    def send(self, run: str) -> DiskReplicateResult:
        body = DiskReplicate(
            job="away",
            run=run,
            session="here",
            vm=WEB01,
            disk=DiskIdentity(key=KEY, address=DiskAddress(datastore="ds-near", path="web01/web01.raw")),
            transport=TransportPreference(),
            target=ReplicaTarget(place=self.place, disk=self.disk, original="web01"),
            configuration=(DiskAddress(datastore="ds-near", path="web01/web01.nvram"),),
        )
        return send_disk(body, self.bench, self.claim(), Unattended())

    def make_point(self, run: str, control: Control = RUNNING) -> None:
        body = ReplicaPoint(replica=self.place, vm=WEB01, run=run, disks=(self.disk,))
        make_replica_point(body, self.bench, self.claim(), control)

    def remove_point(self, run: str, control: Control = RUNNING) -> bool:
        body = ReplicaRemovePoint(replica=self.place, run=run)
        return remove_replica_point(body, self.bench, self.claim(), control).found

    def run(self, run: str) -> DiskReplicateResult:
        """A whole run."""
        self.open()
        sent = self.send(run)
        self.make_point(run)
        return sent

    def revert(self, run: str, condition: ReplicaCondition, control: Control = RUNNING) -> None:
        body = ReplicaRevert(replica=self.place, run=run, condition=condition)
        revert_replica(body, self.bench, self.claim(), control)

    def change_original(self, offset: int = 0, content: bytes | None = None) -> None:
        with self.original.open("r+b") as file:
            file.seek(offset)
            file.write(content or random.randbytes(BLOCK))

    def write(self, offset: int, content: bytes) -> None:
        """Write to the replica, as its guest does."""
        self.simulator.write(self.vm.disks[0].path or "", (offset, content))

    def claim(self) -> Claim:
        self.fence += 1
        return Claim(Fence("t1", 1, self.fence, "token"), "replica", b"", None, server_time=0, lease_s=1)


@pytest.fixture
def proxy(
    tmp_path: Path,
    vsphere: VsphereSimulator,
    endpoint: Endpoint,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proxy]:
    monkeypatch.setenv("PATH", str(NBDKIT.parent), prepend=":")
    monkeypatch.setenv("SIMULATED_VDDK_DISKS", str(vsphere.frozen))
    monkeypatch.setenv("SIMULATED_VDDK_PASSWORD", PASSWORD)
    made = Proxy(tmp_path, vsphere, endpoint, session)
    yield made
    made.bench.vsphere.close()
