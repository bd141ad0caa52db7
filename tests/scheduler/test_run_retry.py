"""Runs that are tried again by hand."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from scheduler.state.asking import ask_to_cancel, ask_to_retry
from scheduler.state.models import (
    Run,
    RunState,
    VmRun,
    VmRunState,
)
from scheduler.state.store import open_state
from tests.scheduler.conftest import World, vm
from tests.scheduler.nightly_runs import ask, read, run_ended


def test_a_run_that_is_retried_begins_its_failed_vms_under_a_new_name(world: World) -> None:
    world.declare(retry_count=0)
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup web01 scsi0:1"] = 1
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    state = open_state(world.url)
    with state.write() as session:
        ask_to_retry(session, run_id)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with state.read() as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED
        web = session.scalars(select(VmRun).where(VmRun.name == "web01")).one()
        assert web.attempt == 2
        assert ("id-web01", web.repository_run) in world.fleet.repository.points
        assert len(world.fleet.repository.points) == 2


def test_a_retry_that_is_cancelled_while_it_looks_for_vms_ends_with_the_last_of_those_it_began(
    world: World,
) -> None:
    world.declare(retry_count=0)
    world.fleet.join("proxy-1", slots=1)
    world.fleet.failures["disk.backup app01 scsi0:0"] = 1
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    with world.writing() as session:
        ask_to_retry(session, run_id)
    while not (disks := [one for one in world.lanes.messages if one.kind == "disk.backup"]):
        service.turn()
    _, claim = world.fleet.claim(disks[0]) or pytest.fail("nobody takes it")
    world.lanes.messages.clear()
    with world.writing() as session:
        ask_to_cancel(session, run_id)
    for _ in range(10):
        service.turn()

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.RUNNING, "a disk of it still does"
    world.fleet.ledger.release(claim.fence, None, "told to stop")
    world.turn_until(service, lambda: run_ended(world, run_id))
    with read(world) as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.reason) == (RunState.CANCELLED, "1 of 2 VMs were backed up by then")


@pytest.mark.parametrize("gone", ["app01", "web01"], ids=["failed before", "succeeded before"])
def test_a_retry_lists_a_vm_once_that_is_not_there_any_more(world: World, gone: str) -> None:
    world.declare(retry_count=0)
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup app01 scsi0:0"] = 1
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    broken = tuple(
        vm(one.identity.name, problem="its VMX is damaged") if one.identity.name == gone else one
        for one in world.fleet.inventory["ds1"]
    )
    world.fleet.inventory = {"ds1": broken}
    with world.writing() as session:
        ask_to_retry(session, run_id)
    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        vm_runs = session.scalars(select(VmRun).order_by(VmRun.name)).all()
        assert [(one.name, one.state) for one in vm_runs] == [
            ("app01", VmRunState.SUCCEEDED),
            ("web01", VmRunState.SUCCEEDED),
        ]
