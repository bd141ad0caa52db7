"""Runs that freeze disks by their storage: the VM's own snapshot is short, and nothing of either is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.outcome import (
    StorageSnapshotCreateResult,
    StorageSnapshotListResult,
    StorageSnapshotRemoveResult,
    TaskFailure,
    TaskResult,
)
from proxy_worker.contract.replication import DiskReplicate
from proxy_worker.contract.specification import StorageSnapshotCreate, StorageSnapshotList, StorageSnapshotRemove
from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.vsphere.model import Vm
from scheduler.planning.replicas import ReplicaTerms
from scheduler.state.models import (
    Datastore,
    DatastoreKind,
    JobKind,
    Run,
    RunState,
    ServiceMark,
    SnapshotEntry,
    SnapshotState,
)
from scheduler.state.store import open_state
from tests.scheduler.mortality import Calls, Life, calls, outlive
from tests.scheduler.vcenters import OFFER, VsphereWorld
from tests.simulators.proxies import Message
from tests.vsphere.machines import MIB, make_vm

__all__ = ["calls"]
MODES = (TransportMode.STORAGE_SNAPSHOT, TransportMode.NETWORK)


@dataclass
class Storage:
    """What a proxy's providers have, and what they saw of the VM meanwhile."""

    one: VsphereWorld
    vm: Vm
    kept: set[tuple[str, StorageSnapshotMark]] = field(default_factory=set)
    frozen_when_made: list[bool] = field(default_factory=list)
    frozen_when_read: list[bool] = field(default_factory=list)
    kept_when_read: list[bool] = field(default_factory=list)
    failure: TaskFailure | None = None

    def serve(self) -> None:
        """Have the simulated proxies answer for it."""
        self.one.world.fleet.answers.update(
            {StorageSnapshotCreate: self.create, StorageSnapshotRemove: self.remove, StorageSnapshotList: self.list}
        )
        self.one.world.fleet.when_handled[f"disk.backup {self.vm.name} scsi0:0"] = self.read

    def create(self, body: StorageSnapshotCreate) -> TaskResult | TaskFailure:
        self.frozen_when_made.append(len(self.one.snapshots(self.vm)) == 1)
        if self.failure is not None:
            return self.failure
        self.kept.add((body.datastore, body.mark))
        return StorageSnapshotCreateResult(duration_seconds=0.01)

    def remove(self, body: StorageSnapshotRemove) -> TaskResult:
        existed = (body.datastore, body.mark) in self.kept
        self.kept.discard((body.datastore, body.mark))
        return StorageSnapshotRemoveResult(existed=existed)

    def list(self, body: StorageSnapshotList) -> TaskResult:
        return StorageSnapshotListResult(
            journals=tuple(
                mark.journal
                for name, mark in self.kept
                if name == body.datastore and mark.installation == body.installation
            )
        )

    def read(self) -> None:
        body = self.one.world.fleet.specifications[-1].body
        assert isinstance(body, DiskBackup)
        self.kept_when_read.append((body.disk.address.datastore, body.disk.address.storage_snapshot) in self.kept)


@pytest.fixture
def vm(session: object) -> Vm:
    return make_vm(session, 2 * MIB, MIB)  # type: ignore[arg-type]


def declare(one: VsphereWorld, vm: Vm, *, modes: tuple[TransportMode, ...] = MODES, **job: object) -> Storage:
    """The vCenter's datastore by the name `ds1`, which `proxy-1` is connected to."""
    one.declare(vm.name, **job)
    with open_state(one.world.url).write() as database:
        database.add(
            Datastore(
                name="ds1", site="primary", kind=DatastoreKind.VSPHERE, vcenter="vc1", vsphere_name="LocalDS_0"
            )
        )
    one.world.fleet.join("proxy-1", datastores={"ds1": modes}, vsphere=OFFER)
    storage = Storage(one, vm)
    storage.serve()
    return storage


def back_up(one: VsphereWorld) -> RunState:
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    with one.read() as database:
        assert {entry.state for entry in database.scalars(select(SnapshotEntry))} <= {SnapshotState.GONE}
        return database.get_one(Run, run_id).state


def test_disks_are_read_from_the_storage_snapshot_when_the_vms_is_gone(vsphere_world: VsphereWorld, vm: Vm) -> None:
    storage = declare(vsphere_world, vm)
    assert back_up(vsphere_world) is RunState.SUCCEEDED
    assert storage.frozen_when_made == [True]
    assert storage.kept_when_read == [True]
    backups = vsphere_world.backups()
    assert [body.disk.address.storage_snapshot is not None for body in backups] == [True, True]
    assert {body.disk.address.datastore for body in backups} == {"ds1"}
    assert storage.kept == set()
    assert vsphere_world.snapshots(vm) == ()


def test_the_vms_snapshot_does_not_wait_for_the_disks(
    vsphere_world: VsphereWorld, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, world = vsphere_world, vsphere_world.world
    storage = declare(one, vm)
    service = world.start()
    run_id = one.ask()

    def thawed() -> bool:
        with one.read() as database:
            return {entry.state for entry in database.scalars(select(SnapshotEntry))} == {SnapshotState.GONE}

    held: list[Message] = []
    handle = world.fleet._handle

    def hold_disks(message: Message) -> None:
        if message.kind is TaskKind.DISK_BACKUP:
            held.append(message)
        else:
            handle(message)

    monkeypatch.setattr(world.fleet, "_handle", hold_disks)
    world.turn_until(service, thawed, wait_out_retries=False)
    assert one.snapshots(vm) == ()
    assert len(storage.kept) == 1
    monkeypatch.undo()
    world.lanes.messages += held
    world.turn_until(service, lambda: one.settled(run_id))
    assert storage.kept == set()


@pytest.mark.parametrize("mode", ["automatic", "storage_snapshot"])
def test_one_that_cannot_be_made_leaves_the_other_modes(vsphere_world: VsphereWorld, vm: Vm, mode: str) -> None:
    storage = declare(vsphere_world, vm, transport_mode=mode)
    storage.failure = TaskFailure.of(SourceError("no storage snapshot", why="the storage is full"))
    assert back_up(vsphere_world) is RunState.SUCCEEDED
    assert {body.disk.address.storage_snapshot for body in vsphere_world.backups()} == {None}
    assert "no storage snapshot was made: " in (vsphere_world.vm_run(vm.name).warning or "")
    assert "the storage is full" in (vsphere_world.vm_run(vm.name).warning or "")
    assert storage.kept == set()


def test_without_a_provider_nothing_is_tried(vsphere_world: VsphereWorld, vm: Vm) -> None:
    storage = declare(vsphere_world, vm, modes=(TransportMode.NETWORK,))
    assert back_up(vsphere_world) is RunState.SUCCEEDED
    assert storage.frozen_when_made == []
    assert "storage snapshot" not in (vsphere_world.vm_run(vm.name).warning or "")


def test_another_mode_that_was_asked_for_is_taken(vsphere_world: VsphereWorld, vm: Vm) -> None:
    storage = declare(vsphere_world, vm, transport_mode="network")
    assert back_up(vsphere_world) is RunState.SUCCEEDED
    assert storage.frozen_when_made == []


def test_what_nobody_knows_of_is_removed_at_start_and_others_are_left(vsphere_world: VsphereWorld, vm: Vm) -> None:
    storage = declare(vsphere_world, vm)
    service = vsphere_world.world.start()
    with vsphere_world.read() as database:
        installation = database.scalars(select(ServiceMark.installation)).one() or ""
    foreign = ("ds1", StorageSnapshotMark(installation="another", journal="lost"))
    storage.kept |= {("ds1", StorageSnapshotMark(installation=installation, journal="lost")), foreign}
    vsphere_world.world.turn_until(service, lambda: storage.kept == {foreign})


@pytest.mark.parametrize("when", ["storage_snapshot.create", "disk.backup"])
def test_a_cancelled_run_leaves_neither(vsphere_world: VsphereWorld, vm: Vm, when: str) -> None:
    one = vsphere_world
    storage = declare(one, vm)
    service = one.world.start()
    run_id = one.ask()

    def cancel() -> None:
        with open_state(one.world.url).write() as database:
            database.get_one(Run, run_id).cancel_requested = True

    title = f"{when} {vm.name} " + ("ds1" if when.startswith("storage") else "scsi0:0")
    one.world.fleet.when_handled[title] = cancel
    one.world.fleet.failures[f"disk.backup {vm.name} scsi0:1"] = 9
    one.world.turn_until(service, lambda: one.settled(run_id))
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.CANCELLED
    assert storage.kept == set()
    assert one.snapshots(vm) == ()


def test_killed_before_any_commit_nothing_of_either_snapshot_is_left(
    new_vsphere_world: Callable[[], VsphereWorld], vm: Vm, calls: Calls
) -> None:
    for deadly in itertools.count(1):
        life = Life("before commit", deadly)
        _live(new_vsphere_world(), vm, calls, life)
        if not life.over.is_set():
            break
    assert deadly > 4


def _live(one: VsphereWorld, vm: Vm, calls: Calls, life: Life) -> None:
    """A run that the scheduler's death interrupts at that moment, and that its next life ends."""
    calls.life = Life()
    storage = declare(one, vm)
    run_id = one.ask()
    outlive(one, run_id, calls, life)
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED, life.last
    assert storage.kept == set(), life.last
    assert one.snapshots(vm) == ()
    assert all(storage.kept_when_read), "what is read from is there"


def test_a_replication_reads_storage_snapshots_too_and_leaves_none(vsphere_world: VsphereWorld, vm: Vm) -> None:
    one = vsphere_world
    terms = ReplicaTerms(datastore="ds2")
    storage = declare(one, vm, kind=JobKind.REPLICATION, repository=None, replica=terms)
    with open_state(one.world.url).write() as database:
        database.add(Datastore(name="ds2", site="primary"))
    one.world.fleet.inventory = {"ds2": ()}
    reached = {"ds1": MODES, "ds2": (TransportMode.DIRECT_STORAGE,)}
    one.world.fleet.join("proxy-1", datastores=reached, vsphere=OFFER)
    frozen: list[bool] = []
    one.world.fleet.when_handled[f"disk.replicate {vm.name} scsi0:0"] = lambda: frozen.append(bool(storage.kept))

    assert back_up(one) is RunState.SUCCEEDED

    bodies = [specification.body for specification in one.world.fleet.specifications]
    sent = [body for body in bodies if isinstance(body, DiskReplicate)]
    marks = [body.disk.address.storage_snapshot for body in sent]
    assert (len(marks), None in marks) == (2, False)
    assert storage.frozen_when_made == [True]
    assert frozen == [True]
    assert storage.kept == set()
    assert one.snapshots(vm) == ()
