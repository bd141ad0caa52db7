"""A clock that was ahead and is set right: what vCenters show is looked at again, and nobody waits for its time."""

from __future__ import annotations

import itertools

import pytest

from scheduler.state.asking import ask_for_scan
from scheduler.state.models import Run, RunState, SnapshotEntry, SnapshotState, VcenterScan, WorkState
from tests.scheduler.conftest import World
from tests.scheduler.vcenters import VsphereWorld
from tests.vsphere.machines import MIB, make_vm

AHEAD_S = 365 * 86_400.0
_names = (f"set-back-{number}" for number in itertools.count(1))


@pytest.mark.parametrize("restarted", [False, True], ids=["while it serves", "before it starts again"])
def test_a_vm_that_was_made_since_is_found(vsphere_world: VsphereWorld, *, restarted: bool) -> None:
    one, name = vsphere_world, next(_names)
    one.declare(name, retry_count=0)
    one.world.clock.ahead_s = AHEAD_S
    service = one.world.start()
    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))

    one.world.clock.ahead_s = 0.0
    make_vm(one.session, MIB, name=name)
    service = one.world.start() if restarted else service
    one.world.serve_turns(service, 2)
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))

    with one.read() as database:
        assert database.get_one(Run, second).state is RunState.SUCCEEDED


def test_who_waits_for_a_look_at_a_vcenter_gets_it(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    make_vm(one.session, MIB, name=name)
    one.declare(name, retry_count=0)
    one.world.clock.ahead_s = AHEAD_S
    service = one.world.start()
    run_id = one.ask()
    with one.open().write() as database:
        asked = ask_for_scan(database, "vc1", now=one.world.clock()).id
    service._advance()

    one.world.clock.ahead_s = 0.0
    one.world.serve_turns(service, 2)
    one.world.turn_until(service, lambda: one.settled(run_id))

    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED
        assert database.get_one(VcenterScan, asked).state is WorkState.SUCCEEDED


def test_a_snapshot_that_was_given_up_is_tried_again_after_a_day(world: World) -> None:
    world.declare()
    of = {"vcenter": "vc1", "vm_ref": "vm-1", "vm_id": "1", "vm_name": "web01", "datastores": (), "created_at": 0.0}
    ahead = world.clock() + AHEAD_S
    with world.start().state.write() as session:
        session.add(SnapshotEntry(id="1", state=SnapshotState.GIVEN_UP, last_try_at=ahead, **of))

    service = world.start()

    with service.state.read() as session:
        assert (session.get_one(SnapshotEntry, "1").last_try_at or AHEAD_S) <= world.clock()
