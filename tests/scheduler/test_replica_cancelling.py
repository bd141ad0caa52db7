"""What was asked for a replica, cancelled while it waits, is done, or has its disks moved; and forgetting."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from proxy_worker.contract.replication import ReplicaCondition
from scheduler.cli.live import Live
from scheduler.cli.replica_record import operation_line, replica_record
from scheduler.replication.asking import ask_for
from scheduler.replication.cancelling import ask_to_cancel
from scheduler.replication.forgetting import forget_replica
from scheduler.state.errors import ReplicaBusyError, ReplicaStateError
from scheduler.state.models import Job, Replica, ReplicaOperationKind, ReplicaPoint, ReplicaState, WorkState
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import ORIGINAL, REPLICA, Sites, two_sites

Kind = ReplicaOperationKind
REVERT, MARK = "replica.revert app01_replica", "replica.mark app01_replica"


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    with two_sites(world) as both:
        both.run()
        yield both


def cancel(sites: Sites) -> None:
    with sites.state.write() as session:
        ask_to_cancel(session, "app01")


def shown(sites: Sites) -> str:
    """What `replica show` says of what was asked for last."""
    with sites.state.read() as session:
        return operation_line(replica_record(session, sites.replica, Live()))


def stopped_in_the_middle(sites: Sites, title: str) -> None:
    """Cancel while a proxy does this, which it leaves half done."""

    def stop() -> None:
        del sites.world.fleet.when_handled[title]
        cancel(sites)
        sites.service.turn()
        sites.world.fleet.failures[title] = 1

    sites.world.fleet.when_handled[title] = stop


def test_what_no_proxy_has_begun_is_not_begun(sites: Sites) -> None:
    with sites.state.write() as session:
        operation_id = ask_for(session, Kind.FAILOVER, "app01", now=sites.world.clock()).id
    sites.service.turn()
    handled = len(sites.world.fleet.handled)
    cancel(sites)
    sites.world.turn_until(sites.service, lambda: sites.operation(operation_id).state.final)

    operation = sites.operation(operation_id)
    assert (operation.state, operation.failure and operation.failure.why) == (
        WorkState.CANCELLED,
        "it was cancelled",
    )
    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.world.fleet.handled[handled:] == []

    sites.world.fleet.when_handled["disk.receive app01 scsi0:1"] = lambda: cancel(sites)
    assert sites.ask(Kind.PLANNED_FAILOVER) is WorkState.CANCELLED
    assert shown(sites) == "planned-failover of app01_replica: it was cancelled"
    assert (sites.replica.state, len(sites.points)) == (ReplicaState.STANDBY, 1)


def test_a_planned_failover_whose_run_is_done_as_it_is_cancelled_goes_no_further(sites: Sites) -> None:
    sites.world.fleet.when_handled["replica.point app01 in ds2"] = lambda: cancel(sites)

    assert sites.ask(Kind.PLANNED_FAILOVER) is WorkState.CANCELLED

    assert (sites.replica.state, len(sites.points)) == (ReplicaState.STANDBY, 2)
    assert ("far", REVERT) not in sites.world.fleet.handled


def stop_while_it_waits(sites: Sites) -> None:
    sites.world.fleet.failures[REVERT] = 1

    def stop_soon() -> None:
        del sites.world.fleet.when_handled[REVERT]
        sites.world.lanes.messages.clear()
        cancel(sites)

    sites.world.fleet.when_handled[REVERT] = stop_soon


def stopped_as_it_is_done(sites: Sites) -> None:
    """Cancel when the proxy has it as good as done."""
    sites.world.fleet.when_handled[REVERT] = lambda: (sites.world.fleet.when_handled.pop(REVERT), cancel(sites))


@pytest.mark.parametrize(
    "stop", [lambda sites: stopped_in_the_middle(sites, REVERT), stop_while_it_waits, stopped_as_it_is_done]
)
def test_a_failover_that_has_begun_is_taken_back(sites: Sites, stop: Callable[[Sites], None]) -> None:
    sites.run()
    older, newest = sites.points
    stop(sites)

    assert sites.ask(Kind.FAILOVER, older) is WorkState.CANCELLED

    assert sites.replica.state is ReplicaState.STANDBY
    replica = sites.folders[REPLICA]
    assert (replica.condition, replica.content) == (ReplicaCondition.STANDBY, replica.points[newest])
    assert sites.ask(Kind.FAILOVER) is WorkState.SUCCEEDED


@pytest.mark.parametrize("moment", ["disk.receive app01 scsi0:1", "disk.replicate app01 scsi0:1"])
def test_a_failback_is_taken_out_of_the_original(sites: Sites, moment: str) -> None:
    """Also if its last disk was written as it was cancelled."""
    sites.ask(Kind.FAILOVER)
    sites.folders[REPLICA].content = "changed"
    sites.world.fleet.when_handled[moment] = lambda: cancel(sites)

    assert sites.ask(Kind.FAILBACK) is WorkState.CANCELLED

    assert sites.replica.state is ReplicaState.FAILED_OVER
    assert sites.folders[ORIGINAL].content == "original"
    sites.world.fleet.when_handled.clear()
    assert sites.ask(Kind.FAILBACK) is WorkState.SUCCEEDED


def stopped_as_it_fails(sites: Sites) -> None:
    """Cancel when the proxy has just failed, which the ledger knows and the scheduler doesn't yet."""
    sites.world.fleet.failures[REVERT] = 1
    sites.world.fleet.when_handled[REVERT] = lambda: (sites.world.fleet.when_handled.pop(REVERT), cancel(sites))


def test_a_failover_that_fails_as_it_is_cancelled_is_taken_back(sites: Sites) -> None:
    stopped_as_it_fails(sites)

    assert sites.ask(Kind.FAILOVER) is WorkState.CANCELLED

    assert shown(sites).startswith("failover of app01_replica: it was cancelled, after it had failed: ")
    assert sites.replica.state is ReplicaState.STANDBY
    assert sites.folders[REPLICA].condition is ReplicaCondition.STANDBY


@pytest.mark.parametrize(
    "stop", [lambda sites: stopped_in_the_middle(sites, REVERT), stop_while_it_waits, stopped_as_it_fails]
)
def test_what_can_not_be_taken_back_is_finished(sites: Sites, stop: Callable[[Sites], None]) -> None:
    sites.ask(Kind.FAILOVER)
    stop(sites)
    assert sites.ask(Kind.UNDO) is WorkState.SUCCEEDED
    assert sites.folders[REPLICA].condition is ReplicaCondition.STANDBY

    sites.ask(Kind.FAILOVER)
    sites.ask(Kind.FAILBACK)

    def begun() -> None:
        del sites.world.fleet.when_handled[MARK]
        cancel(sites)

    sites.world.fleet.when_handled[MARK] = begun

    def too_late() -> None:
        with pytest.raises(ReplicaStateError, match="part of it is done, and the rest follows"):
            cancel(sites)

    sites.world.fleet.when_handled["replica.point app01_replica"] = too_late
    assert sites.ask(Kind.COMMIT) is WorkState.SUCCEEDED
    assert sites.replica.state is ReplicaState.STANDBY
    with pytest.raises(ReplicaStateError, match="nothing that was asked for it is under way"):
        cancel(sites)


def test_a_replica_is_forgotten_though_the_site_is_gone_where_a_point_of_it_was_to_be_removed(
    sites: Sites,
) -> None:
    fleet = sites.world.fleet
    sites.run()
    fleet.lost_answers.add(f"replica.remove_point app01_replica {sites.points[0]}")
    sites.run()
    sites.run()
    fleet.ledger.depart(fleet.identities.pop("far"))
    with sites.state.write() as session:
        session.delete(session.get_one(Job, "away"))

    sites.settle()

    with sites.state.write() as session:
        forget_replica(session, "app01")


def test_a_replica_is_forgotten_once_its_job_is_gone_and_it_is_not_in_use(sites: Sites) -> None:
    def forget() -> None:
        with sites.state.write() as session:
            forget_replica(session, "app01")

    with pytest.raises(ReplicaStateError, match="job away brings it up to date"):
        forget()
    sites.ask(Kind.FAILOVER)
    with sites.state.write() as session:
        session.delete(session.get_one(Job, "away"))
    with pytest.raises(ReplicaStateError, match="it is failed over"):
        forget()
    with sites.state.write() as session:
        ask_for(session, Kind.UNDO, "app01", now=sites.world.clock())
    with pytest.raises(ReplicaBusyError, match="its undo is under way"):
        forget()
    sites.settle()
    sites.world.turn_until(sites.service, lambda: sites.replica.state is ReplicaState.STANDBY)

    forget()
    with sites.state.read() as session:
        assert session.scalars(select(Replica)).all() == session.scalars(select(ReplicaPoint)).all() == []
    assert sites.folders[REPLICA].points
