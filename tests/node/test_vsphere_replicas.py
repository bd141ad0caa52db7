"""Replicas as VMs of a simulated vCenter: made, brought up to date, kept as snapshots, run, and what is refused."""

from __future__ import annotations

import base64
import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from pyVmomi import vim

from proxy_worker.config import ProxyConfiguration
from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.outcome import VsphereOffer
from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMachine,
    ReplicaMark,
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
from proxy_worker.ledger import Claim, Fence, ProxyIdentity
from proxy_worker.mover.control import Control, Unattended, Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.draining import Draining
from proxy_worker.node.replicas import (
    make_replica_point,
    mark_replica,
    open_replica,
    remove_replica_point,
    revert_replica,
)
from proxy_worker.node.replication import send_disk
from proxy_worker.replication.errors import (
    ReplicaBusyError,
    ReplicaDiskSizeError,
    ReplicaFailedOverError,
    ReplicaFolderTakenError,
    ReplicaPermanentError,
    ReplicaPoweredOnError,
    ReplicaRevertingError,
    ReplicaTooLargeError,
)
from proxy_worker.transport.connections import DatastoreConnection
from proxy_worker.transport.inventory import scan_datastore
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.restored import find
from proxy_worker.vsphere.session import Endpoint, Session
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.program import NBDKIT, PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import endpoint, session, vsphere, vsphere_program, vsphere_server
from tests.vsphere.machines import make_vm

__all__ = ["endpoint", "session", "vsphere", "vsphere_program", "vsphere_server"]

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
        return Bench(
            ProxyConfiguration(
                name=name,
                site="primary",
                state_dir=self.root / f"state-{name}",
                secrets_dir=self.root / "secrets",
                scheduler_public_keys=(base64.b64encode(b"k" * 32).decode(),),
                datastores={"ds-near": DatastoreConnection(path=self.root / "ds-near")},
            ),
            ProxyIdentity(name=name, instance_id="1", life="1"),
            Draining(),
            vsphere=VsphereOffer(modes=(TransportMode.NETWORK,), passwords=("vc1",)),
        )

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


def test_a_replica_is_a_vm_like_its_original_and_each_run_sends_what_changed_and_leaves_a_snapshot(
    proxy: Proxy,
) -> None:
    first = proxy.run("run-1")
    vm = proxy.vm
    assert (vm.name, vm.powered_on, proxy.points) == (proxy.folder, False, ["run-1"])
    assert proxy.content == proxy.original.read_bytes()
    assert first.report.stored_bytes == 2 * MIB
    assert (proxy.simulator.datastores["LocalDS_0"] / vm.name / f"{vm.name}.nvram").read_bytes() == b"nvram"

    proxy.change_original()
    second = proxy.run("run-2")
    assert second.report.stored_bytes == BLOCK
    assert proxy.content == proxy.original.read_bytes()
    assert proxy.points == ["run-1", "run-2"]

    assert proxy.remove_point("run-1")
    assert not proxy.remove_point("run-1")
    assert proxy.points == ["run-2"]
    assert proxy.content == proxy.original.read_bytes()


def test_what_was_changed_by_hand_or_by_a_run_that_died_is_gone_at_the_next_run(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.write(MIB, b"changed by hand")
    switch_on(proxy.session, proxy.vm.ref, "replica")
    switch_off(proxy.session, proxy.vm.ref, "replica")

    assert proxy.run("run-2").report.stored_bytes == 0
    assert proxy.content == proxy.original.read_bytes()

    proxy.change_original(MIB)
    proxy.open()
    proxy.send("run-3")  # and dies before its restore point is made
    proxy.change_original(MIB)
    proxy.run("run-4")
    assert proxy.content == proxy.original.read_bytes()


def test_what_a_proxy_knows_of_a_disk_is_not_trusted_once_another_one_wrote_it(proxy: Proxy) -> None:
    before = proxy.original.read_bytes()[:BLOCK]
    with proxy.another() as other:
        other.run("run-1")
        proxy.change_original()
        proxy.open()
        proxy.send("run-2")  # whose word is lost: the disk is tried again elsewhere
        proxy.change_original(content=before)
        other.send("run-2")
        other.make_point("run-2")
        assert proxy.content == proxy.original.read_bytes()

        proxy.change_original()
        changed = proxy.original.read_bytes()[:BLOCK]
        proxy.open()
        proxy.send("run-3")
        proxy.change_original(content=before)
        other.send("run-3")
        other.make_point("run-3")
        proxy.change_original(content=changed)
        proxy.run("run-4")
        assert proxy.content == proxy.original.read_bytes()

        assert proxy.run("run-5").report.stored_bytes == 0, "what it wrote itself, it trusts"


def test_a_proxy_that_lost_its_task_reverts_nothing(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.change_original()
    proxy.run("run-2")
    proxy.write(0, b"written since")
    for lost in (
        lambda: proxy.open(Stopped()),
        lambda: proxy.revert("run-1", ReplicaCondition.FAILED_OVER, Stopped()),
        lambda: proxy.make_point("run-3", Stopped()),
        lambda: proxy.remove_point("run-1", Stopped()),
    ):
        with pytest.raises(CancelledError, match="told to stop"):
            lost()
    assert proxy.content.startswith(b"written since")
    assert (proxy.points, proxy.vm.powered_on) == (["run-1", "run-2"], False)


def test_a_point_that_the_replica_is_half_reverted_to_is_not_removed(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.run("run-2")
    proxy.simulator.go_wrong("RevertToSnapshot_Task", "fail", "TaskInProgress", times=1)
    with pytest.raises(ReplicaBusyError):
        proxy.revert("run-1", ReplicaCondition.FAILED_OVER)

    with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
        proxy.remove_point("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    assert proxy.vm.powered_on


def test_a_vm_that_is_busy_for_a_moment_is_waited_for(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.open()
    proxy.simulator.go_wrong("ReconfigVM_Task", "fail", "TaskInProgress", times=2)
    proxy.send("run-2")
    assert proxy.content == proxy.original.read_bytes()


def test_failover_starts_the_vm_from_a_point_and_undo_goes_back(proxy: Proxy) -> None:
    proxy.run("run-1")
    kept = proxy.original.read_bytes()
    proxy.change_original()
    proxy.run("run-2")
    newest = proxy.original.read_bytes()

    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    assert proxy.vm.powered_on
    assert proxy.content == kept
    proxy.write(0, b"written by the guest")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)  # done again, it changes nothing
    assert proxy.content.startswith(b"written by the guest")
    with pytest.raises(ReplicaFailedOverError, match="failed over to restore point run-1"):
        proxy.open()
    with pytest.raises(ReplicaFailedOverError):
        proxy.send("run-3")

    proxy.revert("run-2", ReplicaCondition.STANDBY)
    assert not proxy.vm.powered_on
    assert proxy.content == newest
    assert proxy.run("run-3").report.stored_bytes == 0
    assert proxy.points == ["run-1", "run-2", "run-3"]


def test_a_permanent_replica_has_no_points_and_is_written_no_more(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    body = ReplicaMark(replica=proxy.place, condition=ReplicaCondition.PERMANENT)
    for _ in range(2):
        mark_replica(body, proxy.bench, proxy.claim(), Unattended())

    assert proxy.vm.powered_on
    assert proxy.vm.snapshots == ()
    with pytest.raises(ReplicaPermanentError):
        proxy.open()


def test_one_that_is_on_or_has_somebodys_snapshot_is_refused(proxy: Proxy) -> None:
    proxy.run("run-1")
    switch_on(proxy.session, proxy.vm.ref, "replica")
    for refused in (proxy.open, lambda: proxy.send("run-2"), lambda: proxy.make_point("run-2")):
        with pytest.raises(ReplicaPoweredOnError, match="powered on"):
            refused()
    with pytest.raises(ReplicaPoweredOnError):
        proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    switch_off(proxy.session, proxy.vm.ref, "replica")

    machine = vim.VirtualMachine(proxy.vm.ref, proxy.session.stub)
    finish(proxy.session, "test", lambda: machine.CreateSnapshot_Task("by hand", "", False, False))
    with pytest.raises(ReplicaBusyError, match="'by hand'"):
        proxy.open()
    assert len(proxy.vm.snapshots) == 2


def test_a_vm_that_is_anothers_is_not_taken(proxy: Proxy) -> None:
    make_vm(proxy.session, MIB, name=proxy.folder)
    with pytest.raises(ReplicaFolderTakenError, match="has a VM of that name"):
        proxy.open()
    proxy.folder += "_2"
    proxy.run("run-1")
    proxy.home = proxy.home.model_copy(update={"mark": "other/replica-1"})
    with pytest.raises(ReplicaFolderTakenError, match="carries the mark inst/replica-1"):
        proxy.open()


def test_a_datastore_that_is_too_small_and_disks_of_other_sizes_are_refused_by_name(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.open()
    with monkeypatch.context() as full:
        full.setattr(replica_vm, "free_bytes", lambda *_: MIB)
        with pytest.raises(ReplicaTooLargeError, match="takes 4194304 bytes, and 1048576 are free"):
            proxy.send("run-1")
    assert proxy.content == bytes(4 * MIB)
    proxy.run("run-1")

    proxy.size = 8 * MIB
    with pytest.raises(ReplicaDiskSizeError, match="4194304 bytes"):
        proxy.open()
