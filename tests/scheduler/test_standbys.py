"""What backup jobs take of replicas, which lie in datastores like any VM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from scheduler.runs.standbys import standbys
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Job, Replica, ReplicaState, Repository, RunState, VmRun, VmRunState
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import Kind, Sites, machine, two_sites


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    """With a replica in its datastore, and a job that backs VMs up."""
    with two_sites(world) as both:
        both.run()
        world.fleet.inventory["ds2"] = (machine("app01_replica", "scsi0:0", datastore="ds2"),)
        declare_backups(both)
        yield both


def declare_backups(sites: Sites) -> None:
    """A job that backs VMs up by a pattern."""
    with sites.state.write() as session:
        session.add(Repository(name="main", location="/backup/main", site="primary", credential="main"))
        session.add(Job(name="nightly", vms=("app*",), repository="main"))


def backed_up(sites: Sites) -> list[str]:
    """The VMs that a run of the job takes."""
    with sites.state.write() as session:
        run_id = ask_for_run(session, "nightly", now=sites.world.clock()).id

    def found() -> list[str]:
        with sites.state.read() as session:
            return list(session.scalars(select(VmRun.name).where(VmRun.run_id == run_id).order_by(VmRun.name)))

    sites.world.turn_until(sites.service, lambda: bool(found()))
    return found()


def test_a_pattern_leaves_out_replicas_that_stand_by(sites: Sites) -> None:
    assert backed_up(sites) == ["app01"]


def test_a_vm_that_has_the_place_of_a_replica_that_could_not_be_made_is_taken(world: World) -> None:
    with two_sites(world) as both:
        world.fleet.inventory["ds2"] = (machine("app01_replica", "scsi0:0", datastore="ds2"),)
        world.fleet.failures["replica.open app01 in ds2"] = 99
        both.run()
        declare_backups(both)

        assert backed_up(both) == ["app01", "app01_replica"]


def test_a_replica_that_is_being_made_stands_by(world: World) -> None:
    with two_sites(world) as both:
        world.fleet.failures["replica.open app01 in ds2"] = 99
        both.run()
        with both.state.write() as session:
            replica = session.scalars(select(Replica).where(Replica.state == ReplicaState.NEW)).one()
            assert replica.place not in standbys(session).places
            session.scalars(select(VmRun).where(VmRun.replica_id == replica.id)).one().state = VmRunState.RUNNING
            session.flush()
            assert replica.place in standbys(session).places
            session.rollback()


def test_a_replica_that_is_named_is_taken(sites: Sites) -> None:
    with sites.state.write() as session:
        session.get_one(Job, "nightly").vms = ("app*", "app01_replica")

    assert backed_up(sites) == ["app01", "app01_replica"]


@pytest.mark.parametrize("kinds", [(Kind.FAILOVER,), (Kind.FAILOVER, Kind.PERMANENT)])
def test_a_replica_that_works_in_its_originals_place_is_taken(sites: Sites, kinds: tuple[Kind, ...]) -> None:
    for kind in kinds:
        sites.ask(kind)

    assert backed_up(sites) == ["app01", "app01_replica"]


@pytest.mark.parametrize("kinds", [(Kind.FAILOVER,), (Kind.FAILOVER, Kind.PERMANENT)])
def test_a_replica_is_what_its_proxy_finds_though_the_database_was_restored_from_before(
    sites: Sites, kinds: tuple[Kind, ...]
) -> None:
    for kind in kinds:
        sites.ask(kind)
    is_now = sites.replica.state
    with sites.state.write() as session:
        session.scalars(select(Replica)).one().state = ReplicaState.STANDBY

    assert sites.run() is RunState.FAILED

    assert sites.replica.state is is_now
    assert backed_up(sites) == ["app01", "app01_replica"]
    if is_now is ReplicaState.FAILED_OVER:
        sites.ask(Kind.UNDO)
        assert sites.replica.state is ReplicaState.STANDBY
