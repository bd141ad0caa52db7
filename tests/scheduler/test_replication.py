"""VMs that are replicated, and what is done with their replicas, by proxies that move no data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.replication import ReplicaCondition, ReplicaPlace
from proxy_worker.contract.specification import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication.asking import ask_for
from scheduler.service import Service
from scheduler.state.asking import ask_for_run
from scheduler.state.errors import ReplicaStateError
from scheduler.state.models import (
    Datastore,
    DiskTask,
    Job,
    JobKind,
    LedgerTask,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaPoint,
    ReplicaState,
    Run,
    RunState,
    Site,
    VmRun,
    WorkState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
from tests.scheduler.mortality import Killed
from tests.simulators.replicas import Folder

Kind = ReplicaOperationKind
ORIGINAL = ReplicaPlace(datastore="ds1", folder="app01")
REPLICA = ReplicaPlace(datastore="ds2", folder="app01_replica")
IN_PLACE = (TransportMode.DIRECT_STORAGE,)


def machine(name: str, *keys: str) -> InventoryVm:
    """A VM of ds1, in a folder of its own."""
    disks = tuple(
        DiskIdentity(key=key, address=DiskAddress(datastore="ds1", path=f"{name}/{key}.vmdk"), size_bytes=1 << 30)
        for key in keys
    )
    vmx = DiskAddress(datastore="ds1", path=f"{name}/{name}.vmx")
    return InventoryVm(identity=VmIdentity(vm_id=f"id-{name}", name=name), disks=disks, configuration=(vmx,))


@dataclass
class Sites:
    """A scheduler, a proxy at each of two sites, and a job that replicates from one to the other."""

    world: World
    service: Service
    state: State

    def run(self) -> RunState:
        """Run the job to its end."""
        with self.state.write() as session:
            run_id = ask_for_run(session, "away", now=self.world.clock()).id
        self.world.turn_until(self.service, lambda: self._run(run_id).state.final)
        self.world.clock.ahead_s += 2
        return self._run(run_id).state

    def ask(self, kind: Kind, point: str | None = None) -> WorkState:
        """Have something done with the replica, to its end."""
        with self.state.write() as session:
            operation_id = ask_for(session, kind, "app01", now=self.world.clock(), point=point).id
        self.world.turn_until(self.service, lambda: self._operation(operation_id).state.final)
        self.world.clock.ahead_s += 2
        return self._operation(operation_id).state

    def settle(self) -> None:
        """Wait until nothing is left to do."""

        def nothing() -> bool:
            with self.state.read() as session:
                return session.scalars(select(LedgerTask).limit(1)).first() is None

        self.world.turn_until(self.service, nothing)

    @property
    def replica(self) -> Replica:
        with self.state.read() as session:
            return session.scalars(select(Replica)).one()

    @property
    def points(self) -> list[str]:
        with self.state.read() as session:
            return list(session.scalars(select(ReplicaPoint.point).order_by(ReplicaPoint.created_at)))

    @property
    def folders(self) -> dict[ReplicaPlace, Folder]:
        return self.world.fleet.replicas.folders

    def reasons(self) -> list[str]:
        """Why VMs failed."""
        with self.state.read() as session:
            return [reason for reason in session.scalars(select(VmRun.reason).order_by(VmRun.started_at)) if reason]

    def _run(self, run_id: str) -> Run:
        with self.state.read() as session:
            return session.get_one(Run, run_id)

    def _operation(self, operation_id: str) -> ReplicaOperation:
        with self.state.read() as session:
            return session.get_one(ReplicaOperation, operation_id)


def prepare(world: World, *, proxies: int = 2, points: int = 2) -> None:
    """Two sites, and what they have."""
    world.fleet.inventory = {"ds1": (machine("app01", "scsi0:0", "scsi0:1"),), "ds2": ()}
    state = open_state(world.url, migrate=True)
    with state.write() as session:
        session.add_all(Site(name=name) for name in ("primary", "remote"))
        session.flush()
        session.add(Datastore(name="ds1", site="primary"))
        session.add(Datastore(name="ds2", site="remote"))
        terms = ReplicaTerms(datastore="ds2", points=points)
        job = Job(name="away", kind=JobKind.REPLICATION, vms=("app*",), replica=terms, retry_count=2)
        session.add(job)
    state.close()
    if proxies == 1:
        world.fleet.join("both", slots=1, datastores={"ds1": IN_PLACE, "ds2": IN_PLACE})
        return
    world.fleet.join("near", datastores={"ds1": IN_PLACE}, receives=True)
    world.fleet.join("far", site="remote", datastores={"ds2": IN_PLACE}, receives=True)


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    prepare(world)
    state = open_state(world.url)
    yield Sites(world, world.start(), state)
    state.close()


def test_a_run_sends_every_disk_from_one_proxy_to_the_other_and_keeps_a_point(sites: Sites) -> None:
    assert sites.run() is RunState.SUCCEEDED

    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.folders[REPLICA].points == {sites.points[0]: "app01/scsi0:1.vmdk"}
    with sites.state.read() as session:
        disks = session.scalars(select(DiskTask)).all()
        assert {(disk.proxy, disk.target_proxy) for disk in disks} == {("near", "far")}
    handled = [title.split()[0] for _, title in sites.world.fleet.handled]
    assert handled.index("disk.receive") < handled.index("disk.replicate") < handled.index("replica.point")


def test_a_proxy_that_reaches_both_sides_sends_nothing_and_needs_one_slot(world: World) -> None:
    prepare(world, proxies=1)
    state = open_state(world.url)
    alone = Sites(world, world.start(), state)

    assert alone.run() is RunState.SUCCEEDED

    assert not [title for _, title in world.fleet.handled if title.startswith("disk.receive")]
    assert alone.folders[REPLICA].content == "app01/scsi0:1.vmdk"
    alone.settle()
    state.close()


def test_the_oldest_points_go_when_there_are_too_many(sites: Sites) -> None:
    for _ in range(3):
        assert sites.run() is RunState.SUCCEEDED
    sites.settle()

    assert len(sites.points) == 2
    assert list(sites.folders[REPLICA].points) == sites.points


def test_a_disk_that_fails_is_sent_again_by_both_tasks_anew(sites: Sites) -> None:
    sites.world.fleet.failures = {"disk.receive app01 scsi0:0": 1, "disk.replicate app01 scsi0:1": 1}

    assert sites.run() is RunState.SUCCEEDED

    with sites.state.read() as session:
        assert [disk.tries for disk in session.scalars(select(DiskTask).order_by(DiskTask.id))] == [2, 2]
    sites.settle()


def test_a_replica_that_is_failed_over_is_left_alone_until_that_is_undone(sites: Sites) -> None:
    sites.run()
    sites.run()
    older, newest = sites.points

    assert sites.ask(Kind.FAILOVER, older) is WorkState.SUCCEEDED
    assert (sites.replica.state, sites.replica.point) == (ReplicaState.FAILED_OVER, older)
    assert sites.folders[REPLICA].condition is ReplicaCondition.FAILED_OVER
    sites.folders[REPLICA].content = "changed"
    assert sites.run() is RunState.FAILED
    assert "its replica app01_replica is failed over" in sites.reasons()[-1]
    assert sites.folders[REPLICA].content == "changed"

    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.folders[REPLICA].content == sites.folders[REPLICA].points[newest]
    assert sites.run() is RunState.SUCCEEDED


def test_what_changed_in_a_replica_is_brought_back_and_can_be_taken_out_again(sites: Sites) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    sites.folders[REPLICA].content = "changed"

    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.FAILED_BACK
    assert sites.folders[ORIGINAL].content == "changed"

    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.FAILED_OVER
    assert sites.folders[ORIGINAL].content == "original"

    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED
    assert sites.ask(Kind.COMMIT) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.folders[ORIGINAL].content == "changed"
    assert len(sites.points) == 2  # what was brought back is the newest
    assert sites.run() is RunState.SUCCEEDED


def test_a_failback_that_fails_leaves_the_original_as_it_was(sites: Sites) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    sites.folders[REPLICA].content = "changed"
    sites.world.fleet.failures = {"disk.replicate app01 scsi0:1": 99}

    assert sites.ask(Kind.FAILBACK) is WorkState.FAILED

    assert sites.replica.state is ReplicaState.FAILED_OVER
    assert sites.folders[ORIGINAL].content == "original"
    sites.world.fleet.failures = {}
    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED


def test_an_original_that_a_failback_left_half_written_is_not_what_undo_returns_to(sites: Sites) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    kept = "before-20260101T000000Z-00000000"
    sites.folders[ORIGINAL] = Folder(content="half written", points={kept: "original"})
    with sites.state.write() as session:
        session.scalars(select(Replica)).one().before = kept

    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED
    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.folders[ORIGINAL].content == "original"


def test_a_planned_failover_runs_once_more_before(sites: Sites) -> None:
    sites.run()
    assert sites.ask(Kind.PLANNED_FAILOVER) is WorkState.SUCCEEDED

    assert len(sites.points) == 2
    assert (sites.replica.state, sites.replica.point) == (ReplicaState.FAILED_OVER, sites.points[-1])


def test_a_permanent_replica_is_not_touched_any_more(sites: Sites) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    assert sites.ask(Kind.PERMANENT) is WorkState.SUCCEEDED

    assert sites.replica.state is ReplicaState.PERMANENT
    assert sites.points == []
    assert sites.run() is RunState.FAILED
    assert "was made permanent" in sites.reasons()[-1]
    with pytest.raises(ReplicaStateError, match="a VM like any other"), sites.state.write() as session:
        ask_for(session, Kind.FAILOVER, "app01_replica", now=1.0)


class MortalState(State):
    """A database whose user dies right after some commits; never before they are counted."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.left = -1

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        self.left -= 1
        if self.left == 0:
            raise Killed


MOST_LIVES = 400


def test_schedulers_that_die_after_every_commit_or_two_get_there_all_the_same(world: World) -> None:
    prepare(world)
    watched, lives = open_state(world.url), 0

    def until(reached: Callable[[], bool]) -> None:
        nonlocal lives
        while not reached():
            assert lives < MOST_LIVES
            mortal = MortalState(open_state(world.url).engine)
            service = world.start(mortal)
            # What was recorded before the last death is recorded again: who always died of that would stay there.
            lives += 1
            mortal.left = 1 + lives % 2
            try:
                world.turn_until(service, reached)
            except Killed:
                world.fleet.work()  # proxies go on meanwhile
            mortal.close()

    sites = Sites(world, world.start(), watched)

    def ask(kind: Kind) -> None:
        with watched.write() as session:
            operation_id = ask_for(session, kind, "app01", now=world.clock()).id
        until(lambda: sites._operation(operation_id).state.final)
        assert sites._operation(operation_id).state is WorkState.SUCCEEDED
        world.clock.ahead_s += 2

    with watched.write() as session:
        run_id = ask_for_run(session, "away", now=world.clock()).id
    until(lambda: sites._run(run_id).state.final)
    assert sites._run(run_id).state is RunState.SUCCEEDED
    world.clock.ahead_s += 2
    for kind in (
        Kind.FAILOVER,
        Kind.UNDO,
        Kind.PLANNED_FAILOVER,
        Kind.FAILBACK,
        Kind.UNDO,
        Kind.FAILBACK,
        Kind.COMMIT,
    ):
        ask(kind)

    assert lives > 20
    assert sites.replica.state is ReplicaState.STANDBY
    assert list(sites.folders[REPLICA].points) == sites.points
    assert sites.folders[ORIGINAL].points == {}
    watched.close()
