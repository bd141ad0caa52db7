"""What becomes of snapshots of ours: removed at the first try, up the ladder, or given up; orphans too."""

from __future__ import annotations

import itertools

from sqlalchemy import select

from proxy_worker.vsphere.snapshots import NAME, Mark, Quiesce, create
from scheduler.fleet.stored import apply_fleet, stored_fleet
from scheduler.runs.removing import GIVEN_UP_FOR_S
from scheduler.state.models import Run, RunState, ServiceMark, SnapshotEntry, SnapshotState
from tests.scheduler.vcenters import VsphereWorld
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm
from tests.vsphere.test_snapshots import by_user

_names = (f"cleanup-{number}" for number in itertools.count(1))


def _entry(one: VsphereWorld) -> SnapshotEntry:
    with one.read() as database:
        return database.scalars(select(SnapshotEntry)).one()


def _is_over(one: VsphereWorld) -> bool:
    with one.read() as database:
        states = set(database.scalars(select(SnapshotEntry.state)))
        return bool(states) and states <= {SnapshotState.GONE, SnapshotState.GIVEN_UP}


def test_a_removal_that_fails_is_a_warning_and_is_done_four_hours_later(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name)
    by_user(one.session, vm)  # so that nothing but removing it helps
    one.simulator.go_wrong("RemoveSnapshot_Task", "fail", "FileFault", times=1)
    service = one.world.start()
    run_id = one.ask()

    def told() -> bool:
        with one.read() as database:
            return database.get_one(Run, run_id).state.final and _entry(one).tries == 1

    one.world.turn_until(service, told)
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED
    assert "its snapshot is not removed yet (tried again in 4 hours)" in (one.vm_run(name).warning or "")
    began = one.world.clock()
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert one.world.clock() - began >= 4 * 3600 - 600
    assert _entry(one).state is SnapshotState.GONE
    assert "not removed" not in (one.vm_run(name).warning or "")
    assert [node.name for node in one.snapshots(vm)] == ["before the upgrade"]


def test_the_ladder_gives_up_after_four_tries_and_a_later_scan_begins_anew(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name)
    by_user(one.session, vm)
    one.simulator.go_wrong("RemoveSnapshot_Task", "fail", "FileFault", times=0)
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert (_entry(one).state, _entry(one).tries) == (SnapshotState.GIVEN_UP, 4)
    assert "given up; remove it" in (one.vm_run(name).warning or "")
    assert len(one.snapshots(vm)) == 2

    one.simulator.reset()
    one.world.clock.ahead_s += GIVEN_UP_FOR_S
    service = one.world.start()
    one.world.turn_until(service, lambda: _entry(one).state is SnapshotState.GONE)
    assert [node.name for node in one.snapshots(vm)] == ["before the upgrade"]


def test_a_snapshot_of_a_vcenter_that_got_another_name_meanwhile_is_removed_under_that_name(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name)
    service = one.world.start()

    def rename() -> None:
        with one.open().write() as database:
            fleet = stored_fleet(database)
            (vcenter,) = fleet.vcenter
            apply_fleet(
                database, fleet.model_copy(update={"vcenter": (vcenter.model_copy(update={"name": "renamed"}),)})
            )

    one.world.fleet.when_handled[f"disk.backup {name} scsi0:0"] = rename
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert _entry(one).state is SnapshotState.GIVEN_UP
    assert "vCenter vc1 is not declared any more" in (one.vm_run(name).warning or "")

    again = one.ask()
    one.world.turn_until(service, lambda: one.settled(again))

    assert one.snapshots(vm) == ()
    with one.read() as database:
        assert set(database.scalars(select(SnapshotEntry.state))) == {SnapshotState.GONE}


def test_what_is_ours_and_needed_by_no_backup_is_removed_at_the_start_and_nothing_else(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name)
    one.world.start()
    with one.read() as database:
        installation = database.get_one(ServiceMark, 1).installation or ""
    create(one.session, vm, Mark(installation, "of-a-lost-database"), Quiesce.NEVER, IMPATIENT)
    create(one.session, vm, Mark("another", "of-theirs"), Quiesce.NEVER, IMPATIENT)
    by_user(one.session, vm, f"{NAME} of-mine")

    service = one.world.start()
    one.world.turn_until(service, lambda: _is_over(one))
    assert [node.name for node in one.snapshots(vm)] == [f"{NAME} of-theirs", f"{NAME} of-mine"]
    assert _entry(one).vm_run_id is None
