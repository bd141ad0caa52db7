"""Empty disks that are added to an existing VM, found again by their file, and deleted with it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import DiskFormat
from proxy_worker.vsphere.devices import VirtualDisk, controllers, disks
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.hot_add import free_unit
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.lookup import devices_of
from proxy_worker.vsphere.new_machine import new_disk
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

_PLACE: Final = re.compile(r"(scsi|sata|nvme|ide)(\d{1,2}):(\d{1,3})")


class DiskNotAddedError(ConflictError):
    """vCenter says that a disk was added, but the VM doesn't have it."""


def add_disk(
    session: Session,
    vm: str,
    path: str,
    size_bytes: int,
    *,
    place: str,
    how: DiskFormat,
    waiting: Waiting | None = None,
) -> VirtualDisk:
    """Add an empty disk at `place`, or at a free unit where that is taken; one that has the file is taken for it.

    `path` is `[datastore] folder/name.vmdk`; the folder is made. Raises `NoFreeUnitError`, `DiskNotAddedError`, and
    what `faults` names.
    """
    devices = devices_of(session, vm)
    if there := _by_path(devices, path):
        return there
    _make_folder(session, vm, path)
    controller, unit = _free_place(devices, place) or free_unit(devices)
    machine = vim.VirtualMachine(vm, session.stub)
    spec = vim.vm.ConfigSpec(deviceChange=[new_disk(size_bytes, path, controller, unit, how)])
    what = f"adding the disk {path} to {vm}"
    finish(session, what, lambda: machine.ReconfigVM_Task(spec), waiting)
    made = _by_path(devices_of(session, vm), path)
    if made is None:
        raise DiskNotAddedError(what, why="vCenter says it is done, but the VM doesn't have the disk")
    return made


def remove_disks(
    session: Session,
    vm: str,
    paths: Collection[str],
    waiting: Waiting | None = None,
    *,
    uuids: Collection[str] = (),
) -> None:
    """Take these disks from the VM and delete their files; those it doesn't have are gone already.

    A migration of the storage gives files other names: disks whose uuid is known are found by that too.
    """
    try:
        devices = devices_of(session, vm)
    except VsphereObjectGoneError:
        return
    keys = {disk.key for disk in disks(devices) if disk.path in paths or disk.uuid in uuids}
    changes = [
        vim.vm.device.VirtualDeviceSpec(operation="remove", fileOperation="destroy", device=device)
        for device in devices
        if device.key in keys
    ]
    if changes:
        machine = vim.VirtualMachine(vm, session.stub)
        spec = vim.vm.ConfigSpec(deviceChange=changes)
        finish(session, f"deleting new disks of {vm}", lambda: machine.ReconfigVM_Task(spec), waiting)


def _by_path(devices: list[Any], path: str) -> VirtualDisk | None:
    return next((disk for disk in disks(devices) if disk.path == path), None)


def _free_place(devices: list[Any], place: str) -> tuple[int, int] | None:
    """The controller's key and the unit of `place`, if there is such a controller and nothing hangs there."""
    matched = _PLACE.fullmatch(place)
    if matched is None:
        return None
    wanted, unit = (matched[1], int(matched[2])), int(matched[3])
    key = next((key for key, bus in controllers(devices).items() if bus == wanted), None)
    taken = any(device.controllerKey == key and device.unitNumber == unit for device in devices)
    return None if key is None or taken else (key, unit)


def _make_folder(session: Session, vm: str, path: str) -> None:
    datastore, name = split_path(path)
    folder = name.rpartition("/")[0]
    if not folder:
        return
    manager = session.content.fileManager
    center = _datacenter(session, vm)
    what = f"making the folder [{datastore}] {folder}"

    def ask() -> None:
        try:
            manager.MakeDirectory(f"[{datastore}] {folder}", center, True)
        except vim.fault.FileAlreadyExists:
            return

    session.call(what, ask, repeatable=True)


def _datacenter(session: Session, vm: str) -> Any:
    """The VM's datacentre, found by going up."""

    def ask() -> Any:
        place = vim.VirtualMachine(vm, session.stub)
        while place is not None and not isinstance(place, vim.Datacenter):
            place = read(session, [place], ["parent"])[0]["parent"]
        return place

    return session.call(f"looking for the datacentre of {vm}", ask, repeatable=True)
