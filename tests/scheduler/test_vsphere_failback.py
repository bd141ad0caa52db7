"""Failback to a vCenter's VM, by proxies that move no data: what they are told, and schedulers that die then."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPoint,
    ReplicaRevert,
)
from proxy_worker.vsphere.model import Vm
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication.asking import ask_for
from scheduler.service import Service
from scheduler.state.errors import ReplicaStateError
from scheduler.state.models import (
    Datastore,
    DatastoreKind,
    JobKind,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaState,
    Run,
    RunState,
    Vcenter,
    WorkState,
)
from tests.scheduler.mortality import Killed, Life, MortalState, bury
from tests.scheduler.vcenters import OFFER, VsphereWorld
from tests.simulators.replicas import Folder
from tests.vsphere.machines import MIB, make_vm

Kind = ReplicaOperationKind
_names = (f"failed-back-{number}" for number in itertools.count(1))


@dataclass
class FailedOver:
    """A VM of a vCenter whose replica has taken its place."""

    one: VsphereWorld
    service: Service
    vm: Vm

    @property
    def replica(self) -> Replica:
        with self.one.read() as database:
            return database.scalars(select(Replica)).one()

    @property
    def original(self) -> Folder:
        """Where proxies were told to bring changes back to."""
        ((_, folder),) = (
            (place, folder)
            for place, folder in self.one.world.fleet.replicas.folders.items()
            if place.vsphere is not None and place.vsphere.original
        )
        return folder

    def ask(self, kind: Kind) -> str:
        with self.one.open().write() as database:
            return ask_for(database, kind, self.vm.name, now=self.one.world.clock()).id

    def ended(self, operation: str) -> WorkState | None:
        with self.one.read() as database:
            state = database.get_one(ReplicaOperation, operation).state
        return state if state.final else None

    def operate(self, kind: Kind) -> WorkState | None:
        """Have something done with the replica, to its end."""
        self.one.world.fleet.specifications.clear()
        operation = self.ask(kind)
        self.one.world.turn_until(self.service, lambda: self.ended(operation) is not None)
        self.one.world.clock.ahead_s += 2
        return self.ended(operation)

    def told(self) -> list[object]:
        """What proxies were told to do since, in order."""
        return [found.body for found in self.one.world.fleet.specifications]

    def run(self) -> RunState:
        run_id = self.one.ask()
        self.one.world.turn_until(self.service, lambda: self.one.settled(run_id))
        self.one.world.clock.ahead_s += 2
        with self.one.read() as database:
            return database.get_one(Run, run_id).state


def _failed_over(one: VsphereWorld, datastore: str) -> FailedOver:
    vm = make_vm(one.session, 2 * MIB, name=next(_names))
    one.world.fleet.inventory = {"ds2": ()}
    terms = ReplicaTerms(datastore=datastore, points=3)
    one.declare(vm.name, kind=JobKind.REPLICATION, repository=None, replica=terms, retry_count=1)
    with one.open().write() as database:
        database.add(Datastore(name="ds2", site="primary"))
        database.add(Datastore(name="LocalDS_1", kind=DatastoreKind.VSPHERE, vcenter="vc1", site="primary"))
    folders = {"ds2": (TransportMode.DIRECT_STORAGE,)}
    one.world.fleet.join("proxy-1", datastores=folders, vsphere=OFFER, receives=True)
    found = FailedOver(one, one.world.start(), vm)
    assert found.run() is RunState.SUCCEEDED
    assert found.operate(Kind.FAILOVER) is WorkState.SUCCEEDED
    return found


@pytest.fixture(params=["ds2", "LocalDS_1"])
def replicated(vsphere_world: VsphereWorld, request: pytest.FixtureRequest) -> FailedOver:
    return _failed_over(vsphere_world, request.param)


def test_an_original_is_kept_written_started_and_let_go_of_by_its_own_uuid(replicated: FailedOver) -> None:
    uuid = (replicated.vm.instance_uuid or "").lower()

    assert replicated.operate(Kind.FAILBACK) is WorkState.SUCCEEDED

    opened, kept, moved, started = replicated.told()
    assert isinstance(opened, ReplicaOpen)
    assert isinstance(kept, ReplicaPoint)
    assert isinstance(moved, DiskReplicate)
    assert isinstance(started, ReplicaMark)
    assert moved.target is not None
    places = {opened.replica, kept.replica, moved.target.place, started.replica}
    (home,) = (place.vsphere for place in places)
    assert home is not None
    assert (home.uuid, home.original, home.datastore) == (uuid, True, "LocalDS_0")
    assert home.mark.endswith(f"/replica-{replicated.replica.id}")
    assert [(disk.key, disk.size_bytes) for disk in opened.disks] == [("scsi0:0", 2 * MIB)]
    assert kept.run == replicated.replica.before
    assert started.condition is ReplicaCondition.FAILED_OVER
    in_vcenter = replicated.replica.machine is not None
    assert (moved.source is not None) is in_vcenter

    assert replicated.operate(Kind.COMMIT) is WorkState.SUCCEEDED
    stands_by, point, released = replicated.told()
    assert isinstance(stands_by, ReplicaMark)
    assert isinstance(point, ReplicaPoint)
    assert isinstance(released, ReplicaMark)
    assert (released.replica, released.condition) == (started.replica, ReplicaCondition.PERMANENT)
    assert stands_by.replica == point.replica != released.replica
    assert (stands_by.replica.vsphere is not None) is in_vcenter
    assert replicated.run() is RunState.SUCCEEDED


def test_an_original_that_cant_be_started_is_what_it_was_before(vsphere_world: VsphereWorld) -> None:
    replicated = _failed_over(vsphere_world, "ds2")
    fleet, name = replicated.one.world.fleet, replicated.replica.name

    def fail_to_start() -> None:
        fleet.failures[f"replica.mark {name}"] = 20

    fleet.when_handled[f"replica.point {replicated.vm.name} in vc1"] = fail_to_start

    assert replicated.operate(Kind.FAILBACK) is WorkState.FAILED

    reverted, released = replicated.told()[-2:]
    assert isinstance(reverted, ReplicaRevert)
    assert isinstance(released, ReplicaMark)
    assert replicated.replica.state is ReplicaState.FAILED_OVER
    assert replicated.replica.before is None
    assert replicated.original.points == {}
    assert replicated.original.content == "original"


def test_a_vcenter_that_isnt_declared_any_more_is_named(vsphere_world: VsphereWorld) -> None:
    replicated = _failed_over(vsphere_world, "ds2")
    with replicated.one.open().write() as database:
        database.delete(database.get_one(Datastore, "LocalDS_1"))
        database.flush()
        database.delete(database.get_one(Vcenter, "vc1"))
    with pytest.raises(ReplicaStateError, match=r"failback .* in vCenter vc1, which isn't declared any more"):
        replicated.ask(Kind.FAILBACK)
    with replicated.one.open().write() as database:
        database.scalars(select(Replica)).one().state = ReplicaState.FAILED_BACK
    for kind in (Kind.COMMIT, Kind.UNDO):
        with pytest.raises(ReplicaStateError, match=f"{kind.value} .* isn't declared any more"):
            replicated.ask(kind)


def test_a_scheduler_that_dies_after_a_commit_brings_it_back_or_takes_it_out_all_the_same(
    vsphere_world: VsphereWorld,
) -> None:
    replicated = _failed_over(vsphere_world, "ds2")
    for deadly in itertools.count(1, 3):
        died = [_dying(replicated, kind, deadly) for kind in (Kind.FAILBACK, Kind.UNDO)]
        assert (replicated.original.content, replicated.original.points) == ("original", {}), deadly
        assert replicated.replica.state is ReplicaState.FAILED_OVER
        if not any(died):
            break
    assert deadly > 5
    for kind in (Kind.FAILBACK, Kind.COMMIT):
        assert _dying(replicated, kind, 4)
    assert replicated.replica.state is ReplicaState.STANDBY
    assert (replicated.original.points, replicated.original.content == "original") == ({}, False)
    assert vsphere_world.snapshots(replicated.vm) == ()


def _dying(replicated: FailedOver, kind: Kind, deadly: int) -> bool:
    """Have something done by a scheduler that dies after so many commits, and another one then; whether it died."""
    one, operation = replicated.one, replicated.ask(kind)
    life = Life("after commit", deadly)
    try:
        service = one.world.start(MortalState(one.open().engine, life))
        one.world.turn_until(service, lambda: replicated.ended(operation) is not None)
    except Killed:
        bury()
        one.world.fleet.work()  # proxies go on meanwhile
        one.world.turn_until(one.world.start(), lambda: replicated.ended(operation) is not None)
    assert replicated.ended(operation) is WorkState.SUCCEEDED, (kind, deadly)
    one.world.clock.ahead_s += 2
    return life.over.is_set()
