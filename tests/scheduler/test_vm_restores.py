"""Restores to a vCenter as the scheduler sees them: what they make, undo, warn of and wait for."""

from __future__ import annotations

import pytest

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.errors import TargetError
from proxy_worker.contract.names import Quiesce, TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.specification import VmCreate
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.snapshots import Mark, create
from scheduler.restores.asking import RestoreActiveError
from scheduler.state.models import (
    Datastore,
    DatastoreKind,
    RestoreWishes,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.scheduler.vcenters import VsphereWorld
from tests.scheduler.vm_restoring import is_catalogued, mark_is_off, restoring
from tests.vsphere.conftest import IMPATIENT


def test_a_vm_is_made_written_and_handed_over(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.ask(wishes=RestoreWishes(datastore="LocalDS_1", power_on=True))
    service = vsphere_world.world.start()

    vsphere_world.world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.failure, asked.row.warnings) == (VmRestoreState.SUCCEEDED, None, ())
    assert mark_is_off(asked)
    made = read_vm(vsphere_world.session, asked.made() or "")
    assert made.powered_on
    assert {(disk.path or "").split()[0] for disk in made.disks} == {"[LocalDS_1]"}
    bodies = [one.body for one in vsphere_world.world.fleet.specifications if isinstance(one.body, DiskRestore)]
    assert [(body.disk_key, body.target_is_blank) for body in bodies] == [("scsi0:0", True), ("scsi0:1", True)]


def test_a_disk_that_fails_is_tried_again(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.proxy.fails = {"scsi0:1": 2}
    asked.ask()

    vsphere_world.world.turn_until(vsphere_world.world.start(), asked.settled)

    assert asked.row.state is VmRestoreState.SUCCEEDED


def test_a_disk_that_goes_on_failing_undoes_everything(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.proxy.fails = {"scsi0:1": 99}
    asked.ask()

    vsphere_world.world.turn_until(vsphere_world.world.start(), asked.settled)

    assert asked.row.state is VmRestoreState.FAILED
    assert "the connection was cut" in str(asked.row.failure)
    assert asked.made() is None


def test_power_on_that_fails_is_a_warning(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.ask(wishes=RestoreWishes(datastore="LocalDS_0", power_on=True))
    vsphere_world.simulator.go_wrong("PowerOnVM_Task", "fail", "GenericVmConfigFault", times=0)

    vsphere_world.world.turn_until(vsphere_world.world.start(), asked.settled)

    assert asked.row.state is VmRestoreState.SUCCEEDED
    assert "isn't powered on" in asked.row.warnings[0]
    assert mark_is_off(asked)


def test_what_cannot_be_deleted_at_once_is_tried_until_it_is(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.proxy.fails = {"scsi0:0": 99}
    asked.ask()
    vsphere_world.simulator.go_wrong("Destroy_Task", "fail", "FileLocked", times=3)

    vsphere_world.world.turn_until(vsphere_world.world.start(), asked.settled)

    assert asked.row.state is VmRestoreState.FAILED
    assert asked.made() is None


def test_a_second_restore_to_the_same_vm_waits_for_nobody(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.ask()
    with pytest.raises(RestoreActiveError, match=asked.restore_id):
        asked.ask()


def test_a_vm_that_a_frozen_proxy_makes_after_all_is_found_and_deleted(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    late: list[VmCreate] = []

    def freeze(body: VmCreate) -> TaskFailure:
        late.append(body)
        return TaskFailure.of(TargetError("the proxy", why="was frozen"))

    vsphere_world.world.fleet.answers[VmCreate] = freeze
    asked.ask()
    service = vsphere_world.world.start()
    vsphere_world.world.turn_until(service, lambda: asked.row.state.final, wait_out_retries=False)
    asked.proxy.create(late[0])
    assert asked.made() is not None

    vsphere_world.world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.made()) == (VmRestoreState.FAILED, None)


def test_over_a_vm_that_is_on_or_has_snapshots_nothing_is_written(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    service = vsphere_world.world.start()
    vsphere_world.world.turn_until(service, lambda: is_catalogued(asked))
    asked.ask(name=asked.vm.name, overwrite=True, wishes=RestoreWishes(power_off=True))
    create(asked.one.session, asked.vm, Mark("somebody", "else"), Quiesce.NEVER, IMPATIENT)

    vsphere_world.world.turn_until(service, asked.settled)

    assert asked.row.state is VmRestoreState.FAILED
    assert "it has the snapshot" in str(asked.row.failure)
    assert not asked.row.touched


@pytest.mark.parametrize("cancel_at", ["placing", "creating", "writing"])
def test_cancelled_in_any_state_it_leaves_no_half_vm(vsphere_world: VsphereWorld, cancel_at: str) -> None:
    asked = restoring(vsphere_world)
    asked.ask()
    world, service = vsphere_world.world, vsphere_world.world.start()
    reached = VmRestoreState(cancel_at)
    while asked.row.state is not reached:
        service.turn()
        if reached is VmRestoreState.WRITING:
            world.fleet.work(1)
        if service.executor is not None:
            service.executor.wait_for_one(0.2)
    asked.cancel()

    world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.failure) == (VmRestoreState.CANCELLED, None)
    assert asked.made() is None


def test_nothing_is_made_while_no_proxy_could_write_it_and_after_a_minute_it_says_so(
    vsphere_world: VsphereWorld,
) -> None:
    asked = restoring(vsphere_world)
    world = asked.one.world
    direct = {"ds1": (TransportMode.DIRECT_STORAGE,)}
    world.fleet.join("proxy-1", datastores=direct, vsphere=VsphereOffer(passwords=("vc1",)))
    with open_state(world.url).write() as database:
        database.add(
            Datastore(
                name="ds1", site="primary", kind=DatastoreKind.VSPHERE, vcenter="vc1", vsphere_name="LocalDS_0"
            )
        )
    began = world.clock()
    asked.ask()
    service = world.start()
    world.turn_until(service, asked.settled)

    assert asked.row.state is VmRestoreState.FAILED
    assert str(asked.row.failure) == (
        f"restore of {asked.vm.name} to datastore LocalDS_0 of vCenter vc1: no proxy that is running "
        "has vc1.password and VDDK, or datastore ds1 mounted, to write its disks"
    )
    assert world.clock() - began >= 60
    assert not any(isinstance(one.body, VmCreate) for one in world.fleet.specifications)

    mounting = VsphereOffer(passwords=("vc1",), mounted=("ds1",))
    world.fleet.join("proxy-1", datastores=direct, vsphere=mounting)
    service.turn()
    asked.ask()
    world.turn_until(service, lambda: any(isinstance(one.body, VmCreate) for one in world.fleet.specifications))
