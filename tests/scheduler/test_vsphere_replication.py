"""Replication of a vCenter's VM: frozen as for a backup, read by what changed since its replica's newest point."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from pyVmomi import vim
from sqlalchemy import select

from proxy_worker.contract.names import Quiesce, TransportMode
from proxy_worker.contract.replication import DiskReplicate, ReplicaOpen
from proxy_worker.contract.subjects import Extent
from proxy_worker.vsphere.changed_blocks import FullRead
from proxy_worker.vsphere.faults import VcenterUnreachableError
from proxy_worker.vsphere.hardware import Hardware
from proxy_worker.vsphere.hardware_reading import read_hardware
from proxy_worker.vsphere.power import switch_on
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import finish
from scheduler.fleet.stored import apply_fleet, stored_fleet
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication.asking import ask_for
from scheduler.runs.waiting import DESCRIBE, waiting_vms
from scheduler.service import Service
from scheduler.state.asking import ask_to_cancel, ask_to_retry
from scheduler.state.models import (
    Datastore,
    DatastoreKind,
    JobKind,
    Replica,
    ReplicaOperationKind,
    ReplicaPoint,
    ReplicaState,
    Run,
    RunState,
    SnapshotEntry,
    SnapshotState,
    StepState,
    VcenterStep,
    VmRun,
    VmRunState,
)
from scheduler.vcenters import describing
from tests.scheduler.vcenters import OFFER, VsphereWorld
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm, write

_names = (f"replicated-{number}" for number in itertools.count(1))


@pytest.fixture
def one(vsphere_world: VsphereWorld) -> VsphereWorld:
    """A world with a vCenter, and a datastore that is a folder, which replicas go to."""
    return vsphere_world


def _declare(one: VsphereWorld, name: str, datastore: str = "ds2", *, retry_count: int = 0) -> Service:
    terms = ReplicaTerms(datastore=datastore, points=2)
    one.world.fleet.inventory = {"ds2": ()}
    one.declare(name, kind=JobKind.REPLICATION, repository=None, replica=terms, retry_count=retry_count)
    with one.open().write() as database:
        database.add(Datastore(name="ds2", site="primary"))
        database.add(Datastore(name="LocalDS_1", kind=DatastoreKind.VSPHERE, vcenter="vc1", site="primary"))
    one.world.fleet.join(
        "proxy-1", datastores={"ds2": (TransportMode.DIRECT_STORAGE,)}, vsphere=OFFER, receives=True
    )
    return one.world.start()


def _run(one: VsphereWorld, service: Service) -> str:
    one.world.clock.ahead_s += 2  # restore points of one second have no order
    one.world.fleet.specifications.clear()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    return run_id


def _sent(one: VsphereWorld) -> list[DiskReplicate]:
    bodies = [specification.body for specification in one.world.fleet.specifications]
    return [body for body in bodies if isinstance(body, DiskReplicate)]


def _state(one: VsphereWorld, run_id: str) -> RunState:
    with one.read() as database:
        return database.get_one(Run, run_id).state


def _nothing_is_frozen(one: VsphereWorld) -> bool:
    with one.read() as database:
        return {entry.state for entry in database.scalars(select(SnapshotEntry))} == {SnapshotState.GONE}


def test_a_second_run_sends_what_changed_since_the_replicas_newest_point_and_no_snapshot_stays(
    one: VsphereWorld,
) -> None:
    name = next(_names)
    vm = make_vm(one.session, 4 * MIB, 2 * MIB, name=name)
    service = _declare(one, name)
    assert _state(one, _run(one, service)) is RunState.SUCCEEDED
    first = _sent(one)
    assert [(body.disk.key, body.full_read_reason, body.areas_in_use) for body in first] == [
        ("scsi0:0", FullRead.FIRST, ()),
        ("scsi0:1", FullRead.FIRST, ()),
    ]
    assert [len(body.configuration) > 0 for body in first] == [True, False]

    write(one.simulator, vm.disks[0].path or "", MIB + 5, b"changed")
    assert _state(one, _run(one, service)) is RunState.SUCCEEDED

    second = _sent(one)
    with one.read() as database:
        oldest, _ = database.scalars(select(ReplicaPoint.point).order_by(ReplicaPoint.created_at))
    assert {body.parent for body in second} == {oldest} == {body.run for body in first}
    changed = (Extent(offset=MIB, length=256 << 10),)
    assert {body.disk.key: body.changed_areas for body in second} == {"scsi0:0": changed, "scsi0:1": ()}
    assert one.snapshots(vm) == ()
    assert _nothing_is_frozen(one)


def test_a_run_that_fails_leaves_no_snapshot_and_the_next_goes_on_from_the_newest_point(one: VsphereWorld) -> None:
    name = next(_names)
    vm = make_vm(one.session, 2 * MIB, name=name)
    service = _declare(one, name)
    _run(one, service)
    (good,) = _sent(one)
    write(one.simulator, vm.disks[0].path or "", MIB, b"changed")
    one.world.fleet.failures[f"disk.replicate {name} scsi0:0"] = 1

    failed = _run(one, service)

    assert _state(one, failed) is RunState.FAILED
    assert one.snapshots(vm) == ()
    with one.open().write() as database:
        ask_to_retry(database, failed)
    one.world.fleet.specifications.clear()
    one.world.turn_until(service, lambda: one.settled(failed))
    assert _state(one, failed) is RunState.SUCCEEDED
    (again,) = _sent(one)
    assert (again.parent, again.changed_areas) == (good.run, (Extent(offset=MIB, length=256 << 10),))
    assert one.snapshots(vm) == ()
    assert _nothing_is_frozen(one)


def test_a_vm_whose_new_snapshot_failed_is_tried_anew_by_tasks_that_no_proxy_has_obeyed_before(
    one: VsphereWorld,
) -> None:
    name = next(_names)
    vm = make_vm(one.session, 2 * MIB, name=name)
    service = _declare(one, name)
    one.world.fleet.failures[f"disk.replicate {name} scsi0:0"] = 1
    run_id = _run(one, service)
    switch_on(one.session, vm.ref, name)
    for quiesce in (Quiesce.REQUIRE, Quiesce.NEVER):  # it has no VMware Tools
        with one.open().write() as database:
            ask_to_retry(database, run_id).quiesce = quiesce
        one.world.turn_until(service, lambda: one.settled(run_id))
        assert (_state(one, run_id) is RunState.SUCCEEDED) == (quiesce is Quiesce.NEVER)

    dispatches = [(spec.task_id, spec.dispatch_number) for spec in one.world.fleet.specifications]
    assert len(dispatches) == len(set(dispatches))
    assert _nothing_is_frozen(one)


@pytest.mark.parametrize("datastore", ["ds2", "LocalDS_1"])
def test_a_failed_vm_is_tried_anew_in_the_vcenter_that_has_it_by_then(one: VsphereWorld, datastore: str) -> None:
    name = next(_names)
    vm = make_vm(one.session, 2 * MIB, name=name)
    service = _declare(one, name, datastore)
    one.world.fleet.failures[f"disk.replicate {name} scsi0:0"] = 1
    run_id = _run(one, service)
    assert _state(one, run_id) is RunState.FAILED

    with one.open().write() as database:
        fleet = stored_fleet(database)
        renamed = tuple(each.model_copy(update={"name": "vc2"}) for each in fleet.vcenter)
        moved = tuple(
            each.model_copy(update={"vcenter": "vc2"}) if each.vcenter is not None else each
            for each in fleet.datastore
        )
        apply_fleet(database, fleet.model_copy(update={"vcenter": renamed, "datastore": moved}))
        ask_to_retry(database, run_id)
    one.world.turn_until(service, lambda: one.settled(run_id))

    assert (one.vm_run(name).state, one.vm_run(name).attempt) == (VmRunState.SUCCEEDED, 2)
    assert one.snapshots(vm) == ()


def test_a_disk_that_is_tried_again_gets_the_same_areas_of_the_same_snapshot(one: VsphereWorld) -> None:
    name = next(_names)
    vm = make_vm(one.session, 2 * MIB, name=name)
    service = _declare(one, name, retry_count=2)
    _run(one, service)
    write(one.simulator, vm.disks[0].path or "", MIB, b"changed")
    one.world.fleet.failures[f"disk.replicate {name} scsi0:0"] = 1

    assert _state(one, _run(one, service)) is RunState.SUCCEEDED

    failed, again = _sent(one)
    assert failed.changed_areas == (Extent(offset=MIB, length=256 << 10),)
    assert (failed.changed_areas, failed.parent, failed.disk) == (again.changed_areas, again.parent, again.disk)
    assert _nothing_is_frozen(one)


def test_a_run_that_is_cancelled_while_its_vm_is_frozen_leaves_no_snapshot(one: VsphereWorld) -> None:
    name = next(_names)
    vm = make_vm(one.session, MIB, name=name)
    service = _declare(one, name)
    counts: list[int] = []

    def cancel() -> None:
        counts.append(len(one.snapshots(vm)))
        with one.open().write() as database:
            ask_to_cancel(database, run_id)

    one.world.fleet.when_handled[f"disk.replicate {name} scsi0:0"] = cancel
    one.world.fleet.failures[f"disk.replicate {name} scsi0:0"] = 1
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))

    assert counts == [1]
    with one.read() as database:
        assert set(database.scalars(select(VmRun.state))) == {VmRunState.CANCELLED}
    assert one.snapshots(vm) == ()


def test_a_replica_in_a_vcenter_is_made_of_what_the_originals_vcenter_says_of_it(one: VsphereWorld) -> None:
    name = next(_names)
    vm = make_vm(one.session, MIB, name=name)
    service = _declare(one, name, "LocalDS_1")

    assert _state(one, _run(one, service)) is RunState.SUCCEEDED

    bodies = [specification.body for specification in one.world.fleet.specifications]
    (opened,) = (body for body in bodies if isinstance(body, ReplicaOpen))
    assert opened.machine is not None
    made_of = msgspec.json.decode(opened.machine.hardware, type=Hardware)
    assert made_of == read_hardware(one.session, vm.ref)
    assert [(disk.key, disk.size_bytes) for disk in opened.machine.disks] == [("scsi0:0", MIB)]
    assert one.snapshots(vm) == ()


def test_a_vm_that_its_vcenter_doesnt_have_any_more_fails_by_name(
    one: VsphereWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(_names)
    vm = make_vm(one.session, MIB, name=name)
    service = _declare(one, name, "LocalDS_1")

    def deleted_meanwhile(session: Session, ref: str) -> Hardware:
        machine = vim.VirtualMachine(vm.ref, one.session.stub)
        finish(one.session, "deleting it", machine.Destroy_Task, IMPATIENT)
        return read_hardware(session, ref)

    monkeypatch.setattr(describing, "read_hardware", deleted_meanwhile)
    run_id = _run(one, service)

    assert _state(one, run_id) is RunState.FAILED
    assert vm.ref in str(one.vm_run(name).reason)
    assert not [found.body for found in one.world.fleet.specifications if isinstance(found.body, ReplicaOpen)]


def test_a_description_is_asked_for_again_and_a_run_that_waits_for_it_says_so_and_is_cancelled(
    one: VsphereWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(_names)
    make_vm(one.session, MIB, name=name)
    service = _declare(one, name, "LocalDS_1", retry_count=2)

    def away(_session: Session, _ref: str) -> Hardware:
        raise VcenterUnreachableError("vCenter vc1", why="it doesn't answer")

    monkeypatch.setattr(describing, "read_hardware", away)
    run_id = one.ask()

    def waits() -> bool:
        with one.read() as database:
            steps = database.scalars(select(VcenterStep).where(VcenterStep.kind == DESCRIBE)).all()
            return [step.state for step in steps] == [StepState.WAITING]

    one.world.turn_until(service, waits)
    with one.read() as database:
        (reason,) = waiting_vms(database, one.world.clock()).values()
    assert "it doesn't answer" in reason
    with one.open().write() as database:
        ask_to_cancel(database, run_id)
    one.world.turn_until(service, lambda: one.settled(run_id))

    with one.read() as database:
        assert database.get_one(Run, run_id).state is RunState.CANCELLED
        assert not database.scalars(select(VcenterStep).where(VcenterStep.kind == DESCRIBE)).all()


def test_a_disk_that_goes_before_the_vm_is_frozen_fails_it_since_a_point_would_be_of_two_moments(
    one: VsphereWorld,
) -> None:
    name = next(_names)
    vm = make_vm(one.session, MIB, MIB, name=name)
    service = _declare(one, name)

    def remove_the_second() -> None:
        machine = vim.VirtualMachine(vm.ref, one.session.stub)
        (second,) = (found for found in machine.config.hardware.device if found.key == vm.disks[1].key)
        gone = vim.vm.device.VirtualDeviceSpec(operation="remove", device=second)
        spec = vim.vm.ConfigSpec(deviceChange=[gone])
        finish(one.session, "removing a disk", lambda: machine.ReconfigVM_Task(spec), IMPATIENT)

    one.world.fleet.when_handled[f"replica.open {name} in ds2"] = remove_the_second
    run_id = _run(one, service)

    assert _state(one, run_id) is RunState.FAILED
    assert one.vm_run(name).reason == "it has other disks by now than when the run was planned"
    assert _sent(one) == []
    assert one.snapshots(vm) == ()
    assert _nothing_is_frozen(one)


def test_a_replica_of_a_vcenters_vm_fails_over_and_no_run_writes_it_from_then_on(one: VsphereWorld) -> None:
    name = next(_names)
    make_vm(one.session, MIB, name=name)
    service = _declare(one, name)
    _run(one, service)

    def ask(kind: ReplicaOperationKind) -> None:
        with one.open().write() as database:
            ask_for(database, kind, name, now=one.world.clock())

    def state() -> ReplicaState:
        with one.read() as database:
            return database.scalars(select(Replica)).one().state

    ask(ReplicaOperationKind.FAILOVER)
    one.world.turn_until(service, lambda: state() is ReplicaState.FAILED_OVER)
    refused = _run(one, service)
    assert _state(one, refused) is RunState.FAILED
    assert "is failed over, and a run would write over it" in str(one.vm_run(name).reason)
    ask(ReplicaOperationKind.PERMANENT)
    one.world.turn_until(service, lambda: state() is ReplicaState.PERMANENT)
