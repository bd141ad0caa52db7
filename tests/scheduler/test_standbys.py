"""What backup jobs take of replicas, which lie in datastores like any VM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from scheduler.state.asking import ask_for_run
from scheduler.state.models import Job, Repository, VmRun
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import Kind, Sites, machine, two_sites


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    """With a replica in its datastore, and a job that backs VMs up."""
    with two_sites(world) as both:
        both.run()
        world.fleet.inventory["ds2"] = (machine("app01_replica", "scsi0:0", datastore="ds2"),)
        with both.state.write() as session:
            session.add(Repository(name="main", location="/backup/main", site="primary", credential="main"))
            session.add(Job(name="nightly", vms=("app*",), repository="main"))
        yield both


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


def test_a_replica_that_is_named_is_taken(sites: Sites) -> None:
    with sites.state.write() as session:
        session.get_one(Job, "nightly").vms = ("app*", "app01_replica")

    assert backed_up(sites) == ["app01", "app01_replica"]


@pytest.mark.parametrize("kinds", [(Kind.FAILOVER,), (Kind.FAILOVER, Kind.PERMANENT)])
def test_a_replica_that_works_in_its_originals_place_is_taken(sites: Sites, kinds: tuple[Kind, ...]) -> None:
    for kind in kinds:
        sites.ask(kind)

    assert backed_up(sites) == ["app01", "app01_replica"]
