"""VMs that are replicated, and what is done with their replicas, by proxies that move no data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaCondition
from scheduler.replication.asking import ask_for
from scheduler.replication.cancelling import ask_to_cancel as ask_to_cancel_operation
from scheduler.state.asking import ask_for_run, ask_to_cancel
from scheduler.state.errors import ReplicaStateError
from scheduler.state.models import (
    DiskTask,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaState,
    RunState,
    VmRun,
    WorkState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
from tests.scheduler.mortality import Killed
from tests.scheduler.two_sites import ORIGINAL, REPLICA, Sites, prepare, two_sites
from tests.simulators.replicas import Folder

Kind = ReplicaOperationKind


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    with two_sites(world) as both:
        yield both


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


def test_a_replica_whose_datastore_is_away_is_not_made_anew_and_its_points_stay_known(sites: Sites) -> None:
    sites.run()
    before, unmounted = sites.points, sites.folders.pop(REPLICA)

    assert sites.run() is RunState.FAILED
    assert "it is not there" in sites.reasons()[-1]
    assert sites.points == before
    assert REPLICA not in sites.folders

    sites.folders[REPLICA] = unmounted
    assert sites.run() is RunState.SUCCEEDED
    assert len(sites.points) == 2


def test_a_disk_that_fails_is_sent_again_by_both_tasks_anew(sites: Sites) -> None:
    sites.world.fleet.failures = {"disk.receive app01 scsi0:0": 1, "disk.replicate app01 scsi0:1": 1}

    assert sites.run() is RunState.SUCCEEDED

    with sites.state.read() as session:
        assert [disk.tries for disk in session.scalars(select(DiskTask).order_by(DiskTask.id))] == [2, 2]
    sites.settle()


def test_a_run_that_is_cancelled_says_how_many_were_replicated_by_then(sites: Sites) -> None:
    with sites.state.write() as session:
        run_id = ask_for_run(session, "away", now=sites.world.clock()).id

    def cancel() -> None:
        with sites.state.write() as session:
            ask_to_cancel(session, run_id)

    sites.world.fleet.when_handled["replica.open app01 in ds2"] = cancel
    sites.world.turn_until(sites.service, lambda: sites.run_of(run_id).state.final)

    run = sites.run_of(run_id)
    assert (run.state, run.reason) == (RunState.CANCELLED, "0 of 1 VMs were replicated by then")


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
    assert "bring it back (`scheduler replica failback app01_replica`)" in sites.reasons()[-1]
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

    with sites.state.read() as session:
        newest = session.scalars(select(ReplicaOperation).order_by(ReplicaOperation.created_at.desc())).first()
        assert newest is not None
        assert "1 of 2 disks failed: disk.replicate app01 scsi0:1: the datastore did not answer" in str(
            newest.failure
        )
    assert sites.replica.state is ReplicaState.FAILED_OVER
    assert sites.folders[ORIGINAL].content == "original"
    sites.world.fleet.failures = {}
    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED


def test_what_an_original_was_kept_as_is_removed_even_where_that_fails_more_often_than_a_run_would_try(
    sites: Sites,
) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    fleet = sites.world.fleet

    def cancel() -> None:
        with sites.state.write() as session:
            ask_to_cancel_operation(session, "app01")
            newest = select(VmRun.repository_run).order_by(VmRun.started_at.desc())
            kept = f"before-{session.scalars(newest).first()}"
        fleet.failures[f"replica.remove_point app01_replica {kept}"] = 8

    fleet.when_handled["replica.point app01 in ds1"] = cancel
    assert sites.ask(Kind.FAILBACK) is WorkState.CANCELLED
    sites.settle()
    assert sites.folders[ORIGINAL].points == {}


@pytest.mark.parametrize("step", ["keeping a point", "releasing the original"])
def test_a_commit_that_fails_can_be_undone_as_if_nothing_had_been_asked_for(sites: Sites, step: str) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    sites.folders[REPLICA].content = "changed"
    sites.ask(Kind.FAILBACK)
    fleet, points = sites.world.fleet, sites.points
    if step == "keeping a point":
        fleet.failures["replica.point app01_replica"] = 99
    else:
        fleet.when_handled["replica.point app01_replica"] = lambda: fleet.failures.update(
            {"replica.mark app01_replica": 99}
        )

    assert sites.ask(Kind.COMMIT) is WorkState.FAILED

    assert sites.replica.state is ReplicaState.FAILED_BACK
    assert list(sites.folders[ORIGINAL].points.values()) == ["original"]
    fleet.failures.clear()
    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.folders[ORIGINAL].content == "original"
    assert sites.folders[REPLICA].condition is ReplicaCondition.FAILED_OVER
    sites.settle()
    assert list(sites.folders[REPLICA].points) == sites.points == points
    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.folders[REPLICA].content == "app01/scsi0:1.vmdk"


def test_a_commit_that_failed_can_be_asked_for_again(sites: Sites) -> None:
    sites.run()
    sites.ask(Kind.FAILOVER)
    sites.ask(Kind.FAILBACK)
    sites.world.fleet.failures = {"replica.point app01_replica": 99}
    assert sites.ask(Kind.COMMIT) is WorkState.FAILED
    sites.world.fleet.failures = {}

    assert sites.ask(Kind.COMMIT) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.folders[ORIGINAL].points == {}


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


def test_a_half_written_original_is_what_it_was_before_once_its_failover_is_undone(sites: Sites) -> None:
    """It could not be put back when its failback failed, e.g. as its vCenter was away."""
    sites.run()
    sites.ask(Kind.FAILOVER)
    fleet = sites.world.fleet
    fleet.failures = {"disk.replicate app01 scsi0:1": 99, "replica.revert app01_replica": 99}
    assert sites.ask(Kind.FAILBACK) is WorkState.FAILED
    original = sites.folders[ORIGINAL]
    original.content = "half written"
    assert sites.ask(Kind.UNDO) is WorkState.FAILED
    assert (sites.replica.state, original.content) == (ReplicaState.FAILED_OVER, "half written")
    fleet.failures = {"replica.mark app01_replica": 99}
    assert sites.ask(Kind.UNDO) is WorkState.FAILED
    fleet.failures = {}

    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED

    assert (original.content, original.points) == ("original", {})
    assert (sites.replica.state, sites.replica.before) == (ReplicaState.STANDBY, None)
    assert sites.folders[REPLICA].condition is ReplicaCondition.STANDBY


def test_a_planned_failover_runs_once_more_before(sites: Sites) -> None:
    sites.run()
    assert sites.ask(Kind.PLANNED_FAILOVER) is WorkState.SUCCEEDED

    assert len(sites.points) == 2
    assert (sites.replica.state, sites.replica.point) == (ReplicaState.FAILED_OVER, sites.points[-1])


def test_a_point_of_a_clock_that_was_ahead_is_not_the_newest(sites: Sites) -> None:
    sites.world.clock.ahead_s = 365 * 86_400.0
    sites.run()
    (wrong,) = sites.points
    sites.world.clock.ahead_s = 0.0
    sites.run()
    (latest,) = set(sites.points) - {wrong}

    sites.ask(Kind.FAILOVER)
    assert sites.replica.point == latest
    sites.ask(Kind.UNDO)
    sites.ask(Kind.PLANNED_FAILOVER)
    assert sites.replica.point not in {wrong, latest}
    sites.settle()
    assert set(sites.points) == {latest, sites.replica.point}


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

    def ask(kind: Kind, ends: WorkState = WorkState.SUCCEEDED) -> None:
        with watched.write() as session:
            operation_id = ask_for(session, kind, "app01", now=world.clock()).id
        until(lambda: sites.operation(operation_id).state.final)
        assert sites.operation(operation_id).state is ends
        world.clock.ahead_s += 2

    def cancel() -> None:
        with watched.write() as session:
            ask_to_cancel_operation(session, "app01")

    with watched.write() as session:
        run_id = ask_for_run(session, "away", now=world.clock()).id
    until(lambda: sites.run_of(run_id).state.final)
    assert sites.run_of(run_id).state is RunState.SUCCEEDED
    world.clock.ahead_s += 2
    for kind in (Kind.FAILOVER, Kind.UNDO, Kind.PLANNED_FAILOVER):
        ask(kind)
    world.fleet.when_handled["disk.receive app01 scsi0:1"] = cancel
    ask(Kind.FAILBACK, WorkState.CANCELLED)
    assert sites.folders[ORIGINAL].points == {}
    world.fleet.when_handled.clear()
    for kind in (Kind.FAILBACK, Kind.UNDO, Kind.FAILBACK, Kind.COMMIT):
        ask(kind)

    assert lives > 20
    assert sites.replica.state is ReplicaState.STANDBY
    assert list(sites.folders[REPLICA].points) == sites.points
    assert sites.folders[ORIGINAL].points == {}
    watched.close()


def test_disks_elsewhere_than_the_vmx_are_not_failed_back_and_it_is_said_what_to_do_instead(
    sites: Sites,
) -> None:
    assert sites.run() is RunState.SUCCEEDED
    with sites.state.write() as session:
        replica = session.scalars(select(Replica)).one()
        replica.state, (first, second) = ReplicaState.FAILED_OVER, replica.original_disks
        moved = second.model_copy(update={"address": second.address.model_copy(update={"datastore": "other"})})
        replica.original_disks = (first, moved)

    with pytest.raises(ReplicaStateError, match=r"not all disks of app01 lie in one .*Make the replica perm"):
        sites.ask(Kind.FAILBACK)
    with pytest.raises(ReplicaStateError, match=r"`undo` and `permanent` can be asked for"):
        sites.ask(Kind.FAILOVER)
    assert sites.run() is RunState.FAILED
    assert sites.reasons()[-1].endswith("a run would write over it: undo that or make it permanent")
