"""What is refused for a replica as a whole, so that no VM is lost to it: whose folder it is, what it is now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaTarget,
)
from proxy_worker.contract.replication_outcome import DiskReplicateResult, ReplicaOpenResult
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, TransportPreference, VmIdentity
from proxy_worker.ledger import Claim, Fence
from proxy_worker.mover.control import Unattended
from proxy_worker.node.replicas import make_replica_point, mark_replica, open_replica
from proxy_worker.node.replication import send_disk
from proxy_worker.replication.errors import (
    OriginalChangedError,
    ReplicaAbsentError,
    ReplicaFolderTakenError,
    ReplicaPoweredOnError,
    ReplicaRevertingError,
)
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.home import Marker
from tests.node.benches import bench_of

MIB = 1 << 20
WEB01 = VmIdentity(vm_id="web01", name="web01")
WEB02 = VmIdentity(vm_id="web02", name="web02")
REPLICA = ReplicaPlace(datastore="ds-far", folder="web01_replica")
ORIGINAL = ReplicaPlace(datastore="ds-near", folder="web01")
KEY = "scsi0:0"
NAMED = 'displayName = "web01"\n'
VMX = NAMED + 'scsi0:0.present = "TRUE"\nscsi0:0.fileName = "web01.raw"\n'


class Proxy:
    """One that reaches both datastores, with an original in one of them."""

    def __init__(self, folder: Path) -> None:
        self.near, self.far = folder / "ds-near", folder / "ds-far"
        (self.near / "web01").mkdir(parents=True)
        self.far.mkdir()
        self.bench = bench_of(folder, datastores={"ds-near": self.near, "ds-far": self.far})
        self.fence = 0
        self.vmx = self.near / "web01/web01.vmx"
        self.vmx.write_text(VMX)
        (self.near / "web01/web01.raw").write_bytes(b"original" * (MIB // 8))

    def folder(self, place: ReplicaPlace) -> ReplicaFolder:
        return ReplicaFolder.reached(place, self.bench.configuration.connections)

    def open(
        self,
        place: ReplicaPlace = REPLICA,
        vm: VmIdentity = WEB01,
        *,
        mapped: bool = False,
        expected: bool = False,
        disks: Iterable[DiskIdentity] = (),
    ) -> ReplicaOpenResult:
        body = ReplicaOpen(replica=place, vm=vm, mapped=mapped, expected=expected, disks=tuple(disks))
        return open_replica(body, self.bench, self.claim(), Unattended())

    def send(
        self, source: ReplicaPlace = ORIGINAL, target: ReplicaPlace = REPLICA, original: str | None = "web01"
    ) -> DiskReplicateResult:
        to = ReplicaTarget(place=target, disk=disk_in(target), original=original)
        body = DiskReplicate(
            job="away",
            run="run-1",
            session="here",
            vm=WEB01,
            disk=disk_in(source),
            transport=TransportPreference(),
            target=to,
        )
        return send_disk(body, self.bench, self.claim(), Unattended())

    def make_point(self, vm: VmIdentity = WEB01) -> None:
        body = ReplicaPoint(replica=REPLICA, vm=vm, run="run-1", disks=(disk_in(REPLICA),))
        make_replica_point(body, self.bench, self.claim(), Unattended())

    def mark(self, condition: ReplicaCondition) -> None:
        mark_replica(ReplicaMark(replica=REPLICA, condition=condition), self.bench, self.claim(), Unattended())

    def claim(self) -> Claim:
        self.fence += 1
        return Claim(Fence("t1", 1, self.fence, "token"), "replica", b"", None, server_time=0, lease_s=1)


def disk_in(place: ReplicaPlace) -> DiskIdentity:
    return DiskIdentity(key=KEY, address=DiskAddress(datastore=place.datastore, path=f"{place.folder}/web01.raw"))


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    return Proxy(tmp_path)


@pytest.fixture
def replicated(proxy: Proxy) -> Proxy:
    """With a replica, and a restore point of it."""
    proxy.open()
    proxy.send()
    proxy.make_point()
    return proxy


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that sessions lock, by their paths."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".session")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_vm_whose_folder_has_a_replicas_name_by_chance_is_neither_taken_nor_touched(proxy: Proxy) -> None:
    (proxy.far / "web01_replica").mkdir()
    (proxy.far / "web01_replica/web01.raw").write_bytes(b"somebody's" * 1000)
    before = contents(proxy.far)

    with pytest.raises(ReplicaFolderTakenError, match=r"the folder is no replica, and has web01\.raw"):
        proxy.open()
    with pytest.raises(ReplicaAbsentError):
        proxy.send()

    assert contents(proxy.far) == before
    assert not (proxy.far / "web01_replica/.replica").exists()


def test_the_replica_of_another_vm_is_neither_taken_nor_written(replicated: Proxy) -> None:
    before = contents(replicated.far)

    with pytest.raises(ReplicaFolderTakenError, match="it is the replica of VM web01, not of web02"):
        replicated.open(vm=WEB02)
    with pytest.raises(ReplicaFolderTakenError, match="it is the replica of VM web01, not of web02"):
        replicated.send(original="web02")
    with pytest.raises(ReplicaFolderTakenError, match="it is the replica of VM web01, not of web02"):
        replicated.make_point(vm=WEB02)

    assert contents(replicated.far) == before


def test_a_folder_whose_making_was_killed_is_taken_and_an_empty_one_too(proxy: Proxy) -> None:
    (proxy.far / "web01_replica/.replica").mkdir(parents=True)
    proxy.open()
    (proxy.far / "web02_replica").mkdir()
    proxy.open(ReplicaPlace(datastore="ds-far", folder="web02_replica"), WEB02, expected=True)

    assert proxy.folder(REPLICA).marker() == Marker(original="web01")


def test_whose_replica_it_is_stays_noted_whatever_becomes_of_it(replicated: Proxy) -> None:
    for condition in (ReplicaCondition.FAILED_OVER, ReplicaCondition.STANDBY, ReplicaCondition.PERMANENT):
        replicated.mark(condition)
        assert replicated.folder(REPLICA).marker() == Marker(condition, original="web01")


def test_a_replica_that_is_expected_is_not_made_anew_where_its_datastore_is_away(replicated: Proxy) -> None:
    assert [point.run for point in replicated.open(expected=True).points] == ["run-1"]
    replicated.far.rename(replicated.far.with_name("unmounted"))
    replicated.far.mkdir()

    with pytest.raises(ReplicaAbsentError, match="it isn't there any more") as raised:
        replicated.open(expected=True)
    with pytest.raises(ReplicaAbsentError):
        replicated.send()

    assert raised.value.retryable
    assert list(replicated.far.iterdir()) == []


@pytest.mark.parametrize("condition", list(ReplicaCondition))
def test_a_half_reverted_replica_keeps_its_points_and_is_sent_nowhere(
    replicated: Proxy, condition: ReplicaCondition
) -> None:
    half = Marker(ReplicaCondition.FAILED_OVER, "run-1", reverting=True, original="web01")
    replicated.folder(REPLICA).note(half)
    replicated.open(ORIGINAL, mapped=True, disks=[disk_in(ORIGINAL)])
    before = contents(replicated.near)

    with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
        replicated.mark(condition)
    with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
        replicated.send(REPLICA, ORIGINAL)

    assert replicated.folder(REPLICA).marker() == half
    assert (replicated.folder(REPLICA).points / "run-1/point.json").exists()
    assert contents(replicated.near) == before


def test_a_failback_reads_no_replica_that_runs_and_brings_back_one_that_is_off(replicated: Proxy) -> None:
    replicated.mark(ReplicaCondition.FAILED_OVER)
    (replicated.far / "web01_replica/web01.raw").write_bytes(b"changed." * (MIB // 8))
    running = replicated.far / "web01_replica/web01-1234.vswp"
    running.touch()
    replicated.open(ORIGINAL, mapped=True, disks=[disk_in(ORIGINAL)])

    with pytest.raises(ReplicaPoweredOnError, match=r"replica web01_replica .* there is web01-1234\.vswp"):
        replicated.send(REPLICA, ORIGINAL)
    running.unlink()
    replicated.send(REPLICA, ORIGINAL)

    assert (replicated.near / "web01/web01.raw").read_bytes() == b"changed." * (MIB // 8)


def test_an_original_that_was_brought_back_is_replicated_while_it_runs(replicated: Proxy) -> None:
    replicated.open(ORIGINAL, mapped=True)
    replicated.folder(ORIGINAL).note(Marker(ReplicaCondition.PERMANENT, original="web01"))
    (replicated.near / "web01/web01-1234.vswp").touch()

    replicated.send()


@pytest.mark.parametrize(
    ("vmx", "why"),
    [
        (VMX.replace("web01.raw", "web01-000001.vmdk"), r"it is web01/web01-000001\.vmdk now"),
        (NAMED, "it is none now"),
    ],
)
def test_a_failback_does_not_write_beneath_a_snapshot_or_a_disk_that_was_taken_out(
    replicated: Proxy, vmx: str, why: str
) -> None:
    replicated.vmx.write_text(vmx)

    with pytest.raises(OriginalChangedError, match=why):
        replicated.open(ORIGINAL, mapped=True, disks=[disk_in(ORIGINAL)])

    assert not (replicated.near / "web01/.replica").exists()


def test_the_configuration_of_an_earlier_run_is_not_taken_for_this_ones(replicated: Proxy) -> None:
    incoming = replicated.folder(REPLICA).incoming
    incoming.mkdir()
    (incoming / "zz-former-name.vmx").write_text('displayName = "former"\n')

    replicated.open(expected=True)

    assert not incoming.exists()
