"""Hot-add: a snapshot's disk attached to the proxy's own VM, and always detached again.

Journal a path before `attach`. What a dead proxy left attached keeps it from booting and the snapshot from going:
`detach` what the journal says at the next start.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError, NotFoundError
from proxy_worker.vsphere.devices import VirtualDisk, controllers, disks
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.lookup import devices_of
from proxy_worker.vsphere.model import Inventory, PlaceKind, Vm
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import TaskFault, Waiting, finish, watch

LARGEST_BYTES: Final = 62 << 40
"""vSphere's largest virtual disk; above it only raw devices exist."""
READ_ONLY_MODE: Final = "independent_nonpersistent"
"""How disks are attached to be read: what the guest writes to them is thrown away."""
_UNITS: Final = 16
_CONTROLLERS_OWN_UNIT: Final = 7


class ProxyVmNotFoundError(NotFoundError):
    """The proxy isn't a VM of this vCenter, so disks can't be hot-added to it."""


class NoFreeUnitError(ConflictError):
    """Every SCSI unit of the proxy's VM is taken."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A disk that hangs at the proxy's VM."""

    path: str
    key: int
    place: str
    uuid: str | None
    mode: str = READ_ONLY_MODE


def own_vm(session: Session, product_uuid: str) -> str:
    """The proxy's own VM, by what the guest's firmware says (`/sys/class/dmi/id/product_uuid`).

    Guests see the first half of the uuid in either byte order, depending on the VM's hardware version.
    """
    what = f"finding this proxy's VM in vCenter {session.endpoint.name}"
    index = session.content.searchIndex
    found = set()
    for candidate in candidates(product_uuid):
        vm = session.call(what, partial(index.FindByUuid, None, candidate, True, False), repeatable=True)
        if vm is not None:
            found.add(str(vm._moId))
    if len(found) != 1:
        raise ProxyVmNotFoundError(
            what,
            why=f"{len(found)} VMs have the BIOS uuid {product_uuid.strip()}",
            remedy="Run the proxy in a VM of this vCenter whose uuid is its own, or leave out virtual_appliance.",
        )
    return found.pop()


def candidates(product_uuid: str) -> tuple[str, ...]:
    """A BIOS uuid in both byte orders."""
    try:
        shown = uuid.UUID(product_uuid.strip())
    except ValueError:
        return ()
    return tuple(dict.fromkeys((str(shown), str(uuid.UUID(bytes=shown.bytes_le)))))


def obstacle(inventory: Inventory, proxy: Vm, source: Vm, disk: VirtualDisk) -> str | None:
    """Why the proxy can't hot-add this disk, or None."""
    if disk.controller == "ide":
        return "IDE disks can't be hot-added"
    if disk.size_bytes > LARGEST_BYTES:
        return "the disk is larger than 62 TB"
    if _datacenter(inventory, proxy) != _datacenter(inventory, source):
        return "the proxy is in another datacentre"
    store = inventory.datastores.get(disk.datastore or "")
    if store is None or not any(mount.host == proxy.host and mount.accessible for mount in store.mounts):
        return f"the proxy's host doesn't reach datastore {store.name if store else disk.path}"
    return None


def free_unit(devices: Iterable[Any]) -> tuple[int, int]:
    """A SCSI controller's device key and a free unit there; raises `NoFreeUnitError`."""
    devices = list(devices)
    buses = {key: bus for key, (kind, bus) in controllers(devices).items() if kind == "scsi"}
    taken = {(device.controllerKey, device.unitNumber) for device in devices}
    for key in sorted(buses, key=lambda key: -buses[key]):  # the proxy's own disks are on the first one
        for unit in range(_UNITS):
            if unit != _CONTROLLERS_OWN_UNIT and (key, unit) not in taken:
                return key, unit
    raise NoFreeUnitError(
        "hot-adding a disk to this proxy's VM",
        why="no SCSI unit is free" if buses else "it has no SCSI controller",
        remedy="Add a SCSI controller to the proxy's VM, or lower max_concurrent_tasks.",
    )


def attach(session: Session, proxy: str, disk: VirtualDisk, waiting: Waiting | None = None) -> Attached:
    """Attach a disk as it is frozen in a snapshot; what is written to it is thrown away."""
    what = f"hot-adding {disk.path} to {proxy}"
    machine = vim.VirtualMachine(proxy, session.stub)
    controller, unit = free_unit(devices_of(session, proxy))
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=disk.path, diskMode=READ_ONLY_MODE)
    device = vim.vm.device.VirtualDisk(
        key=-1, controllerKey=controller, unitNumber=unit, backing=backing, capacityInKB=disk.size_bytes >> 10
    )
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
    spec = vim.vm.ConfigSpec(deviceChange=[change])
    finish(session, what, lambda: machine.ReconfigVM_Task(spec), waiting)
    found = next((entry for entry in attached(session, proxy) if entry.path == disk.path), None)
    if found is None:
        raise ConflictError(what, why="vCenter says it is done, but the VM doesn't have the disk")
    return found


def attached(session: Session, proxy: str) -> tuple[Attached, ...]:
    """Every disk that hangs at the proxy's VM, its own included."""
    return tuple(
        Attached(disk.path, disk.key, disk.place, disk.uuid, disk.mode)
        for disk in disks(devices_of(session, proxy))
        if disk.path is not None
    )


def detach(session: Session, proxy: str, paths: Iterable[str], waiting: Waiting | None = None) -> tuple[str, ...]:
    """Detach these disks where they are attached, leaving their files alone; returns those that were."""
    wanted = set(paths)
    all_devices = devices_of(session, proxy)
    places = {disk.key: disk.path for disk in disks(all_devices) if disk.path in wanted}
    devices = [device for device in all_devices if device.key in places]
    if not devices:
        return ()
    machine = vim.VirtualMachine(proxy, session.stub)
    changes = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=device) for device in devices]
    spec = vim.vm.ConfigSpec(deviceChange=changes)
    finish(session, f"detaching disks from {proxy}", lambda: machine.ReconfigVM_Task(spec), waiting)
    return tuple(path for path in places.values() if path is not None)


def settle(session: Session, proxy: str, waiting: Waiting | None = None) -> None:
    """Wait for tasks of the proxy's VM: who started one may be dead, and it attaches a disk all the same.

    Raises `VsphereTaskTimeoutError` when one isn't done in time.
    """
    what = f"waiting for the tasks of {proxy}"
    machine = vim.VirtualMachine(proxy, session.stub)
    found = session.call(what, lambda: read(session, [machine], ["recentTask"]), repeatable=True)
    for task in found[0]["recentTask"] or ():
        with contextlib.suppress(TaskFault, VsphereObjectGoneError):  # how it ended is nobody's business any more
            watch(session, what, task, waiting)


def _datacenter(inventory: Inventory, vm: Vm) -> str | None:
    places = inventory.ancestors(vm.folder)
    return next((place.ref for place in places if place.kind is PlaceKind.DATACENTER), None)
