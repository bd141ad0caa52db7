"""Runs of a vCenter's VMs: frozen, read by what changed, let go; and what goes wrong, named for that VM alone."""

from __future__ import annotations

import itertools
import time

from pyVmomi import vim
from sqlalchemy import select

from proxy_worker.contract.names import Quiesce
from proxy_worker.contract.subjects import Extent
from proxy_worker.vsphere.changed_blocks import FullRead
from proxy_worker.vsphere.power import switch_on
from proxy_worker.vsphere.tasks import finish
from scheduler.fleet.stored import apply_fleet, stored_fleet
from scheduler.runs.waiting import SCAN, waiting_vms
from scheduler.state.asking import ask_to_cancel, ask_to_retry
from scheduler.state.models import (
    DiskTask,
    Job,
    NbdDisk,
    Run,
    RunState,
    SnapshotEntry,
    SnapshotState,
    StepState,
    Vcenter,
    VcenterStep,
    Vm,
    VmRun,
    VmRunState,
)
from scheduler.vcenters.choice import SNAPSHOTS_PER_DATASTORE
from tests.scheduler.vcenters import VsphereWorld
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, disk, make_vm, write

_names = (f"run-{number}" for number in itertools.count(1))


def _back_up(one: VsphereWorld) -> str:
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    return run_id


def test_a_full_run_and_an_incremental_one_read_what_changed_and_leave_no_snapshot(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vms = [make_vm(one.session, 4 * MIB, 2 * MIB, name=f"{name}-{letter}") for letter in "abc"]
    one.declare(f"{name}-*")
    service = one.world.start()

    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))
    backups = one.backups()
    assert sorted((body.vm.name, body.disk.key) for body in backups) == [
        (vm.name, key) for vm in vms for key in ("scsi0:0", "scsi0:1")
    ]
    assert {body.full_read_reason for body in backups} == {FullRead.FIRST}
    assert {body.areas_in_use for body in backups} == {()}, "nothing has been written yet"
    assert all(one.again(vm).tracks_changes for vm in vms)

    write(one.simulator, vms[1].disks[0].path or "", MIB + 5, b"changed")
    one.world.fleet.specifications.clear()
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))

    changed = {(body.vm.name, body.disk.key): body.changed_areas for body in one.backups()}
    assert changed.pop((vms[1].name, "scsi0:0")) == (Extent(offset=MIB, length=256 << 10),)
    assert set(changed.values()) == {()}
    assert {body.areas_in_use for body in one.backups()} == {None}
    with one.read() as database:
        assert {run.state for run in database.scalars(select(Run))} == {RunState.SUCCEEDED}
        assert {entry.state for entry in database.scalars(select(SnapshotEntry))} == {SnapshotState.GONE}
    assert {body.parent for body in one.backups()} == {body.run for body in backups}
    assert [one.snapshots(vm) for vm in vms] == [(), (), ()]


def test_a_guest_that_cannot_be_quiesced_is_told_as_a_warning(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    switch_on(one.session, make_vm(one.session, MIB, name=name).ref, name)
    one.declare(name)
    _back_up(one)
    vm_run = one.vm_run(name)
    assert vm_run.state is VmRunState.SUCCEEDED
    assert vm_run.warning == "the snapshot is only crash-consistent: VMware Tools don't run in the guest"


def test_a_vm_that_must_be_quiesced_and_cannot_fails_alone_by_name(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    switch_on(one.session, vm.ref, name)
    one.declare(name, quiesce=Quiesce.REQUIRE, retry_count=1)
    _back_up(one)
    vm_run = one.vm_run(name)
    assert vm_run.state is VmRunState.FAILED
    assert "VMware Tools don't run in the guest" in (vm_run.reason or "")
    assert (one.snapshots(vm), one.backups()) == ((), [])


def test_a_connection_that_breaks_while_a_snapshot_is_made_is_tried_again(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vms = [make_vm(one.session, MIB, name=f"{name}-{letter}") for letter in "ab"]
    one.declare(f"{name}-*")
    one.simulator.go_wrong("CreateSnapshot_Task", "drop")
    run_id = _back_up(one)
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED
    assert [one.snapshots(vm) for vm in vms] == [(), ()]
    assert one.world.clock.ahead_s >= 600


def test_a_vcenter_that_cannot_be_read_is_named_and_the_rest_of_the_run_goes_on(
    vsphere_world: VsphereWorld,
) -> None:
    one = vsphere_world
    one.declare("elsewhere", "nobody")
    with one.open().write() as database:
        database.get_one(Vcenter, "vc1").credential = "missing"
        database.add(Vm(name="elsewhere", disks=(NbdDisk(key="disk0", nbd_uri="nbd://127.0.0.1"),)))
    run_id = _back_up(one)
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.PARTLY_FAILED
    assert one.vm_run("elsewhere").state is VmRunState.SUCCEEDED
    reason = one.vm_run("vCenter vc1").reason or ""
    assert reason.startswith("its VMs are not known: password of backup@vsphere.local at vCenter vc1")


def test_a_vcenter_that_is_declared_while_a_run_looks_for_its_vms_is_looked_into_too(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    make_vm(one.session, MIB, name=name)
    one.declare(name)
    with one.open().write() as database:
        fleet = stored_fleet(database)
        (right,) = fleet.vcenter
        wrong = right.model_copy(update={"port": 1})  # nobody listens there
        apply_fleet(database, fleet.model_copy(update={"vcenter": (wrong,)}))
    service = one.world.start()
    run_id = one.ask()

    def refused() -> bool:
        with one.read() as database:
            scans = database.scalars(select(VcenterStep).where(VcenterStep.kind == SCAN)).all()
            return [scan.state for scan in scans] == [StepState.WAITING]

    one.world.turn_until(service, refused, wait_out_retries=False)
    with one.open().write() as database:
        fleet = stored_fleet(database)
        renamed = right.model_copy(update={"name": "vc2"})
        apply_fleet(database, fleet.model_copy(update={"vcenter": (renamed,)}))
    one.world.turn_until(service, lambda: one.settled(run_id))

    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED


def test_a_reset_of_tracking_and_disks_that_come_and_go_are_named(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, MIB, name=name)
    one.declare(name)
    service = one.world.start()
    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))
    gone = vim.vm.device.VirtualDeviceSpec(
        operation="remove", device=vim.vm.device.VirtualDisk(key=vm.disks[1].key)
    )
    new = disk((1000, 3), MIB, f"[LocalDS_0] {name}/d3.vmdk")
    machine = vim.VirtualMachine(vm.ref, one.session.stub)
    spec = vim.vm.ConfigSpec(deviceChange=[gone, new])
    finish(one.session, "changing disks", lambda: machine.ReconfigVM_Task(spec), IMPATIENT)
    one.simulator.reset_change_tracking(vm.ref)
    one.world.fleet.specifications.clear()
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))
    assert {body.disk.key: body.full_read_reason for body in one.backups()} == {
        "scsi0:0": FullRead.RESET,
        "scsi0:3": FullRead.FIRST,
    }
    assert "disk scsi0:1 of the last restore point isn't in the VM any more" in (one.vm_run(name).warning or "")


def test_a_vm_that_went_back_to_a_snapshot_of_its_owner_is_read_whole_and_keeps_that_snapshot(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name, track_changes=True)
    machine = vim.VirtualMachine(vm.ref, one.session.stub)
    options = {"name": "before the upgrade", "memory": False, "quiesce": False}
    theirs = finish(one.session, "a user's snapshot", lambda: machine.CreateSnapshot_Task(**options), IMPATIENT)
    one.declare(name)
    service = one.world.start()
    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))
    finish(one.session, "going back", theirs.RevertToSnapshot_Task, IMPATIENT)
    one.world.fleet.specifications.clear()
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))
    (body,) = one.backups()
    assert (body.full_read_reason, body.changed_areas, body.parent) == (FullRead.RESET, None, None)
    assert [node.ref for node in one.snapshots(vm)] == [theirs._moId]


def test_a_disk_that_is_read_whole_is_told_what_is_in_use_or_why_nobody_knows(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, 2 * MIB, 2 * MIB, name=name)
    write(one.simulator, vm.disks[0].path or "", MIB, b"written")
    one.declare(name)
    one.simulator.go_wrong("QueryChangedDiskAreas", "refuse", "FileFault", skip=1)
    _back_up(one)
    first, second = one.backups()
    assert (first.areas_in_use, first.parent) == ((Extent(offset=MIB, length=256 << 10),), None)
    assert first.full_read_reason == FullRead.FIRST
    assert second.areas_in_use is None
    assert second.full_read_reason == f"{FullRead.FIRST}; {FullRead.UNTOLD}: FileFault"


def test_a_disk_that_is_tried_again_gets_the_same_areas_of_the_same_snapshot(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, 2 * MIB, name=name)
    one.declare(name)
    service = one.world.start()
    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))
    write(one.simulator, vm.disks[0].path or "", MIB, b"once")
    one.world.fleet.specifications.clear()
    one.world.fleet.failures[f"disk.backup {name} scsi0:0"] = 1
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))
    failed, again = one.backups()
    assert failed.changed_areas == (Extent(offset=MIB, length=256 << 10),)
    assert (failed.changed_areas, failed.parent, failed.disk) == (again.changed_areas, again.parent, again.disk)
    with one.read() as database:
        assert {task.changed_areas for task in database.scalars(select(DiskTask))} == {None}


def test_a_failed_vm_that_is_tried_anew_gets_a_snapshot_of_its_own(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name, retry_count=0)
    service = one.world.start()
    one.world.fleet.failures[f"disk.backup {name} scsi0:0"] = 1
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert one.vm_run(name).reason == "1 of 1 disks failed"
    with one.open().write() as database:
        ask_to_retry(database, run_id)
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert one.vm_run(name).state is VmRunState.SUCCEEDED
    snapshots = [body.disk.address.vsphere.snapshot for body in one.backups() if body.disk.address.vsphere]
    assert len(set(snapshots)) == 2
    assert one.snapshots(vm) == ()


def test_a_vm_whose_new_snapshot_failed_is_tried_anew_by_tasks_that_no_proxy_has_obeyed_before(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name, retry_count=0)
    service, fleet = one.world.start(), one.world.fleet
    fleet.failures[f"disk.backup {name} scsi0:0"] = 1
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    switch_on(one.session, vm.ref, name)
    with one.open().write() as database:
        ask_to_retry(database, run_id).quiesce = Quiesce.REQUIRE
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert "VMware Tools don't run in the guest" in (one.vm_run(name).reason or "")

    with one.open().write() as database:
        ask_to_retry(database, run_id).quiesce = Quiesce.NEVER
    one.world.turn_until(service, lambda: one.settled(run_id))

    assert one.vm_run(name).state is VmRunState.SUCCEEDED
    dispatches = [(spec.task_id, spec.dispatch_number) for spec in fleet.specifications]
    assert len(dispatches) == len(set(dispatches))
    assert one.snapshots(vm) == ()


def test_a_failed_vm_is_tried_anew_in_the_vcenter_that_has_it_by_then(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    switch_on(one.session, vm.ref, name)
    one.declare(name, quiesce=Quiesce.REQUIRE, retry_count=0)
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    assert one.vm_run(name).state is VmRunState.FAILED

    with one.open().write() as database:
        fleet = stored_fleet(database)
        renamed = (fleet.vcenter[0].model_copy(update={"name": "vc2"}),)
        apply_fleet(database, fleet.model_copy(update={"vcenter": renamed}))
        ask_to_retry(database, run_id).quiesce = Quiesce.NEVER
    one.world.turn_until(service, lambda: one.settled(run_id))

    assert (one.vm_run(name).state, one.vm_run(name).attempt) == (VmRunState.SUCCEEDED, 2)
    assert one.snapshots(vm) == ()


def test_no_datastore_has_more_than_four_snapshots_open_and_the_rest_says_why_it_waits(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vms = [make_vm(one.session, MIB, name=f"{name}-{letter}") for letter in "abcdef"]
    one.declare(f"{name}-*")
    service = one.world.start()
    run_id = one.ask()

    def frozen() -> int:
        service.turn()
        with one.read() as database:
            present = select(SnapshotEntry).where(SnapshotEntry.state == SnapshotState.PRESENT)
            return len(database.scalars(present).all())

    deadline = time.monotonic() + 120
    while frozen() < SNAPSHOTS_PER_DATASTORE:
        assert time.monotonic() < deadline
        assert service.executor is not None
        service.executor.wait_for_one(0.2)
    with one.read() as database:
        reasons = waiting_vms(database, one.world.clock())
    full = "waiting: datastore LocalDS_0 of vCenter vc1 has 4 of 4 snapshots open"
    assert list(reasons.values()) == [full, full]
    assert sum(len(one.snapshots(vm)) for vm in vms) == SNAPSHOTS_PER_DATASTORE
    one.world.turn_until(service, lambda: one.settled(run_id))
    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.SUCCEEDED


def test_a_run_that_is_cancelled_while_vms_are_frozen_and_wait_to_be_leaves_no_snapshot(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vms = [make_vm(one.session, MIB, name=f"{name}-{letter}") for letter in "abcdef"]
    one.declare(f"{name}-*")
    service = one.world.start()
    run_id = one.ask()

    def begun() -> bool:
        with one.read() as database:
            return VmRunState.RUNNING in set(database.scalars(select(VmRun.state)))

    one.world.fleet.identities.clear()  # nobody takes a disk
    one.world.turn_until(service, begun, wait_out_retries=False)
    with one.open().write() as database:
        ask_to_cancel(database, run_id)
    one.world.turn_until(service, lambda: one.settled(run_id), wait_out_retries=False)
    with one.read() as database:
        assert set(database.scalars(select(VmRun.state))) == {VmRunState.CANCELLED}
        assert database.get_one(Run, run_id).state is RunState.CANCELLED
    assert [one.snapshots(vm) for vm in vms] == [()] * 6


def test_two_jobs_of_one_vm_take_turns_with_its_snapshot(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=name)
    one.declare(name)
    with one.open().write() as database:
        database.add(Job(name="hourly", vms=(name,), repository="main"))
    service = one.world.start()
    counts: list[int] = []
    one.world.fleet.when_handled[f"disk.backup {name} scsi0:0"] = lambda: counts.append(len(one.snapshots(vm)))
    runs = [one.ask("nightly"), one.ask("hourly")]
    one.world.turn_until(service, lambda: all(one.settled(run) for run in runs))
    assert counts == [1, 1]
    assert one.snapshots(vm) == ()
