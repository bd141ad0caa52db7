"""The steps of a VM that runs from its restore point: that is mounted, the VM started, its disks moved."""

from __future__ import annotations

from typing import Final

from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.subjects import DiskKey, Frozen
from proxy_worker.vsphere.lookup import find_vm
from proxy_worker.vsphere.nfs_datastore import mount, unmount
from proxy_worker.vsphere.power import switch_on
from proxy_worker.vsphere.relocation import move_disks
from proxy_worker.vsphere.restored import clear
from scheduler.vcenters.steps import Access, StepKind


class MountRequest(Frozen):
    """What a host is to mount, or to mount no more."""

    restore: str
    host: str
    """Managed object id."""
    datastore: str
    """What it is to be called."""
    server: str = ""
    path: str = ""


class StartRequest(Frozen):
    """A VM to power on."""

    restore: str
    vm_ref: str
    instance_uuid: str
    name: str


class MoveRequest(Frozen):
    """A VM whose disks are to go to production."""

    restore: str
    vm_ref: str
    instance_uuid: str
    name: str
    datastore: str
    """Where they are."""
    to: dict[DiskKey, str]
    """Where they go."""
    disk_format: DiskFormat


class InstantDone(Frozen):
    """It is so."""


def mount_share(access: Access, request: MountRequest) -> InstantDone:
    """Have the host mount what the proxy serves."""
    mount(access.session, request.host, request.datastore, server=request.server, path=request.path)
    return InstantDone()


def start(access: Access, request: StartRequest) -> InstantDone:
    """Power the VM on."""
    vm = find_vm(access.session, request.vm_ref, request.instance_uuid, request.name)
    switch_on(access.session, vm.ref, vm.name, access.waiting)
    return InstantDone()


def move(access: Access, request: MoveRequest) -> InstantDone:
    """Move the disks, then take the mark off: from then on nothing deletes the VM."""
    session = access.session
    vm = find_vm(session, request.vm_ref, request.instance_uuid, request.name)
    move_disks(
        session,
        vm,
        away_from=request.datastore,
        to=request.to,
        how=request.disk_format,
        waiting=access.waiting,
    )
    clear(session, vm.ref, f"{access.installation}/{request.restore}", access.waiting)
    return InstantDone()


def unmount_share(access: Access, request: MountRequest) -> InstantDone:
    """Have the host unmount it."""
    unmount(access.session, request.host, request.datastore)
    return InstantDone()


MOUNT: Final = StepKind("restore.mount", MountRequest, mount_share)
START: Final = StepKind("restore.start", StartRequest, start)
MOVE: Final = StepKind("restore.move", MoveRequest, move)
UNMOUNT: Final = StepKind("restore.unmount", MountRequest, unmount_share)
