"""Restores to a vCenter as the scheduler sees them; killed at every journalled step, they finish or undo."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from proxy_worker.contract.errors import ProxyfleetError, SourceError, TargetError
from proxy_worker.contract.names import Quiesce, TransportMode
from proxy_worker.contract.outcome import (
    CreatedDisk,
    DiskRestoreResult,
    PointDisk,
    TaskFailure,
    TaskResult,
    VmCreateResult,
    VsphereOffer,
)
from proxy_worker.contract.specification import DiskAddress, DiskRestore, VmCreate, VsphereDisk
from proxy_worker.vsphere.hardware import Hardware
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.new_machine import EmptyDisk, NewMachine, make
from proxy_worker.vsphere.restored import find, mark_of
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, create
from scheduler.planning.places import TrackingMark
from scheduler.restores.asking import RestoreActiveError, ask_for_disks_to_vm, ask_for_vm_restore
from scheduler.service import Service
from scheduler.state.models import (
    ChangeBaseOfPoint,
    Datastore,
    DatastoreKind,
    LedgerTask,
    Point,
    RestoreWishes,
    VcenterStep,
    VcenterVm,
    VmRestore,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.scheduler.vcenters import VsphereWorld, new_vsphere_world, vsphere_world
from tests.simulators.proxies import disk_report
from tests.vsphere.conftest import IMPATIENT, endpoint, session, vsphere, vsphere_program, vsphere_server
from tests.vsphere.machines import MIB, make_vm

__all__ = [
    "endpoint",
    "new_vsphere_world",
    "session",
    "vsphere",
    "vsphere_program",
    "vsphere_server",
    "vsphere_world",
]

OFFER = VsphereOffer(modes=(TransportMode.NETWORK,), passwords=("vc1",))
HARDWARE = Hardware(
    name="web", guest_os="other", cpus=1, cores_per_socket=1, memory_mib=64, firmware="bios", secure_boot=False,
    hardware_version=None, bios_uuid=None, annotation="", shows_disk_uuids=False, nvram=None, controllers=(),
    cards=(), has_vtpm=False,
)  # fmt: skip
_names = (f"restored-{number}" for number in itertools.count(1))


class KilledError(Exception):
    """The scheduler dies here."""


@dataclass
class Proxy:
    """Makes VMs for real, writes nothing, and fails what it is told to."""

    session: Session
    fails: dict[str, int] = field(default_factory=dict)
    """By disk key: how often it fails before it succeeds."""
    error: type[ProxyfleetError] = SourceError
    """How it fails."""

    def create(self, body: VmCreate) -> TaskResult:
        disks = tuple(EmptyDisk(key, 2 * MIB, body.place.datastore) for key in ("scsi0:0", "scsi0:1"))
        machine = NewMachine(
            name=body.name, hardware=HARDWARE, disks=disks, instance_uuid=body.instance_uuid, mark=body.mark,
            same_machine=body.same_machine, folder=body.place.folder, pool=body.place.pool, host=body.place.host,
            datastore=body.place.datastore,
        )  # fmt: skip
        made = make(self.session, machine, IMPATIENT)
        found = (
            CreatedDisk(key=disk.place, size_bytes=disk.size_bytes, target=_target(body, made.ref, disk.key))
            for disk in made.disks
        )
        return VmCreateResult(vm=made.ref, name=made.name, disks=tuple(found))

    def write(self, body: DiskRestore) -> TaskResult | TaskFailure:
        if self.fails.get(body.disk_key, 0) > 0:
            self.fails[body.disk_key] -= 1
            return TaskFailure.of(self.error(body.disk_key, why="the connection was cut"))
        return DiskRestoreResult(report=disk_report(), target_path="there")


def _target(body: VmCreate, vm: str, key: int) -> DiskAddress:
    return DiskAddress(
        path="x.vmdk",
        vsphere=VsphereDisk(
            vcenter=body.vcenter,
            vm=vm,
            key=key,
            path="[LocalDS_0] x.vmdk",
            controller="scsi",
            datastore_type="VMFS",
        ),
    )


@dataclass
class Restoring:
    """A world with one restore asked for."""

    one: VsphereWorld
    proxy: Proxy
    vm: Vm
    restore_id: str = ""

    def ask(self, **how: object) -> None:
        state = open_state(self.one.world.url)
        with state.write() as database:
            wishes = RestoreWishes(datastore="LocalDS_0")
            settings: dict[str, object] = {"vm": self.vm.name, "name": f"{self.vm.name}-copy", "wishes": wishes}
            self.restore_id = ask_for_vm_restore(database, now=time.time(), **(settings | how)).id  # type: ignore[arg-type]
        state.close()

    @property
    def row(self) -> VmRestore:
        with self.one.read() as database:
            return database.get_one(VmRestore, self.restore_id)

    def cancel(self) -> None:
        state = open_state(self.one.world.url)
        with state.write() as database:
            database.get_one(VmRestore, self.restore_id).cancel_requested = True
        state.close()

    def settled(self) -> bool:
        with self.one.read() as database:
            steps = select(VcenterStep.id).where(VcenterStep.subject == self.restore_id)
            left = database.scalar(select(LedgerTask.id).limit(1)) or database.scalar(steps.limit(1))
            return database.get_one(VmRestore, self.restore_id).state.final and left is None

    def made(self) -> str | None:
        return find(self.one.session, self.row.instance_uuid)


def restoring(one: VsphereWorld) -> Restoring:
    """A VM with a restore point, in a world whose proxy answers."""
    name = next(_names)
    vm = make_vm(one.session, 2 * MIB, 2 * MIB, name=name, track_changes=True)
    one.declare(name)
    proxy = Proxy(one.session)
    one.world.fleet.answers[VmCreate] = proxy.create
    one.world.fleet.answers[DiskRestore] = proxy.write
    state = open_state(one.world.url)
    with state.write() as database:
        disks = tuple(PointDisk(key=key, size_bytes=2 * MIB, stored_bytes=1) for key in ("scsi0:0", "scsi0:1"))
        database.add(
            Point(
                repository="main",
                vm_id=vm.instance_uuid,
                point="point-1",
                vm_name=name,
                job="nightly",
                created_at=1.0,
                disks=disks,
            )
        )
        kept = TrackingMark(change_id="52 de/1", disk_uuid=vm.disks[0].uuid or "", size_bytes=2 * MIB)
        database.add(
            ChangeBaseOfPoint(
                repository="main", vm_id=vm.instance_uuid, point="point-1", disk_key="scsi0:0", mark=kept
            )
        )
    state.close()
    return Restoring(one, proxy, vm)


def _mark_is_off(asked: Restoring) -> bool:
    made = asked.made()
    return made is not None and mark_of(asked.one.session, made) is None


def test_a_vm_is_made_written_and_handed_over(vsphere_world: VsphereWorld) -> None:
    asked = restoring(vsphere_world)
    asked.ask(wishes=RestoreWishes(datastore="LocalDS_1", power_on=True))
    service = vsphere_world.world.start()

    vsphere_world.world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.failure, asked.row.warnings) == (VmRestoreState.SUCCEEDED, None, ())
    assert _mark_is_off(asked)
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
    assert _mark_is_off(asked)


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
    vsphere_world.world.turn_until(service, lambda: _is_catalogued(asked))
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


def _kinds() -> dict[str, Callable[[Restoring], None]]:
    def new(asked: Restoring) -> None:
        asked.ask()

    def failing(asked: Restoring) -> None:
        asked.proxy.fails, asked.proxy.error = {"scsi0:1": 99}, TargetError  # not tried again
        asked.ask()

    def disk(asked: Restoring) -> None:
        state = open_state(asked.one.world.url)
        with state.write() as database:
            asked.restore_id = ask_for_disks_to_vm(
                database,
                vm=asked.vm.name,
                disks=("scsi0:0",),
                to_vm=asked.vm.name,
                wishes=RestoreWishes(),
                now=time.time(),
            ).id
        state.close()

    def overwrite(asked: Restoring) -> None:
        asked.ask(name=None, overwrite=True, wishes=RestoreWishes(power_on=True))

    return {"new": new, "failing": failing, "disk": disk, "overwrite": overwrite}


@pytest.mark.parametrize("kind", list(_kinds()))
def test_killed_at_every_journalled_step_it_comes_to_the_same(
    new_vsphere_world: Callable[[], VsphereWorld], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The scheduler dies before and after each of its transactions; the next life goes on.

    Of two kinds only before: what was done and not recorded is done again.
    """
    number, stride = 0, 1 if kind in {"new", "overwrite"} else 2
    while True:
        one = new_vsphere_world()
        asked = restoring(one)
        service = one.world.start()
        if kind in {"disk", "overwrite"}:
            one.world.turn_until(service, lambda asked=asked: _is_catalogued(asked))
        _kinds()[kind](asked)
        died = _die_at(one, service, asked, number, monkeypatch)
        if died:
            one.world.turn_until(one.world.start(), asked.settled)
        expected = VmRestoreState.FAILED if kind == "failing" else VmRestoreState.SUCCEEDED
        assert asked.row.state is expected, f"killed at {number}: {asked.row.failure}"
        if kind == "new":
            assert _mark_is_off(asked)
            assert _named(one.session, f"{asked.vm.name}-copy") == 1
        elif kind == "failing":
            assert asked.made() is None
            assert _named(one.session, f"{asked.vm.name}-copy") == 0
        elif kind == "disk":
            assert len(read_vm(one.session, asked.vm.ref).disks) == 3
        else:
            after = read_vm(one.session, asked.vm.ref)
            assert (after.snapshots, after.tracks_changes, after.powered_on) == ((), True, True)
        if not died:
            break
        number += stride
    assert number > 5


def _die_at(
    one: VsphereWorld, service: Service, asked: Restoring, number: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Let the service die before or after its transaction `number // 2`; False if the restore ends first."""
    countdown = itertools.count()
    original = service._steps

    def steps() -> object:
        at = next(countdown)
        if at == number // 2 and number % 2 == 0:
            raise KilledError
        manager = original()
        if at == number // 2:
            return _dying_after(manager)
        return manager

    monkeypatch.setattr(service, "_steps", steps)
    try:
        one.world.turn_until(service, asked.settled)
    except KilledError:
        return True
    return False


class _dying_after:  # noqa: N801 - a context manager
    """Commits, then dies before anything is told."""

    def __init__(self, manager: object) -> None:
        self.manager = manager

    def __enter__(self) -> object:
        return self.manager.__enter__()  # type: ignore[attr-defined]

    def __exit__(self, *exception: object) -> None:
        self.manager.__exit__(*exception)  # type: ignore[attr-defined]
        raise KilledError


def _is_catalogued(asked: Restoring) -> bool:
    with asked.one.read() as database:
        return database.scalar(select(VcenterVm.ref).where(VcenterVm.name == asked.vm.name)) is not None


def _named(session: Session, name: str) -> int:
    return sum(vm.name == name for vm in read_inventory(session).vms.values())


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
