"""A world with a restore to a vCenter: what is restored, and a proxy that makes VMs for real."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from proxy_worker.contract.disks import DiskRestore, DiskRestoreResult
from proxy_worker.contract.errors import ProxyfleetError, SourceError
from proxy_worker.contract.outcome import CreatedDisk, PointDisk, TaskFailure, TaskResult, VmCreateResult
from proxy_worker.contract.specification import VmCreate
from proxy_worker.contract.subjects import DiskAddress, VsphereDisk
from proxy_worker.vsphere.hardware import Hardware
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make
from proxy_worker.vsphere.restored import find, mark_of
from proxy_worker.vsphere.session import Session
from scheduler.planning.places import TrackingMark
from scheduler.restores.asking import ask_for_vm_restore
from scheduler.runs.journal import Journal
from scheduler.service import Service
from scheduler.state.models import (
    ChangeBaseOfPoint,
    LedgerTask,
    Point,
    RestoreWishes,
    VcenterStep,
    VcenterVm,
    VmRestore,
)
from scheduler.state.store import open_state
from tests.scheduler.mortality import Killed
from tests.scheduler.vcenters import VsphereWorld
from tests.simulators.proxies import disk_report
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm

HARDWARE = Hardware(
    name="web", guest_os="other", cpus=1, cores_per_socket=1, memory_mib=64, firmware="bios", secure_boot=False,
    hardware_version=None, bios_uuid=None, annotation="", shows_disk_uuids=False, nvram=None, controllers=(),
    cards=(), has_vtpm=False,
)  # fmt: skip
_names = (f"restored-{number}" for number in itertools.count(1))


@dataclass
class Proxy:
    """Makes VMs for real, writes nothing, and fails what it is told to."""

    session: Session
    fails: dict[str, int] = field(default_factory=dict)
    """By disk key: how often it fails before it succeeds."""
    error: type[ProxyfleetError] = SourceError
    """How it fails."""

    def create(self, body: VmCreate) -> TaskResult:
        disks = tuple(NewDisk(key, 2 * MIB, body.place.datastore) for key in ("scsi0:0", "scsi0:1"))
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


def mark_is_off(asked: Restoring) -> bool:
    """Whether the VM is there, and handed over."""
    made = asked.made()
    return made is not None and mark_of(asked.one.session, made) is None


def is_catalogued(asked: Restoring) -> bool:
    """Whether the scheduler knows the VM that is restored."""
    with asked.one.read() as database:
        return database.scalar(select(VcenterVm.ref).where(VcenterVm.name == asked.vm.name)) is not None


def died_at(asked: Restoring, service: Service, number: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the service die before or after its transaction `number // 2`; False if the restore ends first."""
    countdown = itertools.count()
    original = service._steps

    @contextmanager
    def steps() -> Iterator[Journal]:
        deadly = next(countdown) == number // 2
        if deadly and number % 2 == 0:
            raise Killed
        with original() as journal:
            yield journal
        if deadly:
            raise Killed

    monkeypatch.setattr(service, "_steps", steps)
    try:
        asked.one.world.turn_until(service, asked.settled)
    except Killed:
        return True
    return False
