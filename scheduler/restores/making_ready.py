"""The steps `restore.ready` and `restore.attach`: an existing VM made ready to be written, or given new disks."""

from __future__ import annotations

import posixpath
from typing import Final

from pydantic import Field

from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.outcome import CreatedDisk
from proxy_worker.contract.subjects import DiskAddress, DiskKey, Extent, Frozen, VsphereDisk
from proxy_worker.vsphere.changed_blocks import ChangeBase, Changes
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.disk_adding import add_disk
from proxy_worker.vsphere.faults import MissingPrivilegeError, VsphereError
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.lookup import datastore_types, find_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.rewriting import changed_since, power_off, require_disk, require_idle, stop_tracking
from proxy_worker.vsphere.snapshots import Mark, SnapshotError
from scheduler.planning.places import TrackingMark
from scheduler.vcenters.areas import bounded
from scheduler.vcenters.steps import Access, StepKind

NO_BASE: Final = "nothing is kept of where change tracking stood in the restore point"


class ReadyRequest(Frozen):
    """An existing VM, and which of its disks are written."""

    restore: str
    vm_ref: str
    instance_uuid: str
    name: str
    may_be_on: bool = False
    """Whether it may be powered off."""
    sizes: dict[DiskKey, int]
    bases: dict[DiskKey, TrackingMark] = Field(default_factory=dict)
    """Where change tracking stood in the restore point."""
    declared: dict[str, str] = Field(default_factory=dict)
    """Declared datastores of this vCenter: what it calls each -> what the fleet file does."""


class ReadyDisk(CreatedDisk):
    """A disk that may be written now."""

    changed_areas: tuple[Extent, ...] | None = None
    """Where it differs from the restore point at most."""
    full_write_reason: str | None = None


class Ready(Frozen):
    """The disks, by what a proxy writes them by."""

    disks: tuple[ReadyDisk, ...]


class AttachRequest(ReadyRequest):
    """New disks for an existing VM."""

    disk_format: DiskFormat = DiskFormat.THIN
    datastore: str | None = None
    """None: beside the VM's configuration."""


def make_ready(access: Access, request: ReadyRequest) -> Ready:
    """Power it off if it may be, ask what changed, and switch change tracking off; named errors say why not."""
    session = access.session
    vm = find_vm(session, request.vm_ref, request.instance_uuid, request.name)
    mark = Mark(access.installation, request.restore)
    require_idle(vm, mark, may_be_on=request.may_be_on)
    disks = {key: require_disk(vm, key, size) for key, size in request.sizes.items()}
    vm = power_off(session, vm, access.waiting)
    changes = _changes(access, vm, mark, request)
    stop_tracking(session, vm, access.waiting)
    vm = read_vm(session, vm.ref)  # the files are others while a snapshot exists
    disks = {key: require_disk(vm, key, disk.size_bytes) for key, disk in disks.items()}
    types = datastore_types(session, vm.datastores)
    return Ready(
        disks=tuple(
            _ready(
                access,
                request,
                vm,
                disk,
                datastore_type=types.get(_store(disk), "unknown"),
                changes=changes.get(key),
            )
            for key, disk in disks.items()
        )
    )


def attach(access: Access, request: AttachRequest) -> Ready:
    """Add an empty disk of each size, or find those that an earlier try added."""
    session = access.session
    vm = find_vm(session, request.vm_ref, request.instance_uuid, request.name)
    require_idle(vm, Mark(access.installation, request.restore), may_be_on=request.may_be_on)
    vm = power_off(session, vm, access.waiting)
    made = {
        key: add_disk(
            session,
            vm.ref,
            new_path(vm, request.datastore, request.restore, key),
            size,
            place=key,
            how=request.disk_format,
            waiting=access.waiting,
        )
        for key, size in request.sizes.items()
    }
    types = datastore_types(session, read_vm(session, vm.ref).datastores)
    disks = (
        _ready(access, request, vm, disk, datastore_type=types.get(_store(disk), "unknown")).model_copy(
            update={"key": key}
        )
        for key, disk in made.items()
    )
    return Ready(disks=tuple(disks))


def new_path(vm: Vm, datastore: str | None, restore: str, key: str) -> str:
    """Where a disk that is added to a VM lies: the restore's id in its name lets it be found again."""
    home, path = split_path(vm.configuration_path or "")
    return f"[{datastore or home}] {posixpath.dirname(path)}/restored-{restore}-{key.replace(':', '-')}.vmdk"


def _changes(access: Access, vm: Vm, mark: Mark, request: ReadyRequest) -> dict[str, Changes | str]:
    """What changed, or why nobody can tell."""
    bases = {
        key: ChangeBase(base.change_id, base.disk_uuid, base.size_bytes) for key, base in request.bases.items()
    }
    found: dict[str, Changes | str] = dict.fromkeys(request.sizes, NO_BASE)
    if bases:
        try:
            found.update(changed_since(access.session, vm, mark, bases, access.waiting))
        except (SnapshotError, MissingPrivilegeError, VsphereError) as error:
            found.update(dict.fromkeys(bases, str(error)))
    return found


def _ready(
    access: Access,
    request: ReadyRequest,
    vm: Vm,
    disk: VirtualDisk,
    *,
    datastore_type: str,
    changes: Changes | str | None = None,
) -> ReadyDisk:
    datastore, path = split_path(disk.path or "")
    areas = changes.areas if isinstance(changes, Changes) else None
    return ReadyDisk(
        key=disk.place,
        size_bytes=disk.size_bytes,
        target=DiskAddress(
            datastore=request.declared.get(datastore),
            path=path,
            vsphere=VsphereDisk(
                vcenter=access.account.reference,
                vm=vm.ref,
                snapshot=None,
                key=disk.key,
                path=disk.path or "",
                uuid=disk.uuid,
                controller=disk.controller,
                datastore_type=datastore_type,
            ),
        ),
        changed_areas=bounded(areas, disk.size_bytes) if areas is not None else None,
        full_write_reason=None if areas is not None else _reason(changes),
    )


def _reason(changes: Changes | str | None) -> str | None:
    if not isinstance(changes, Changes):
        return changes
    return f"{changes.full_read}: {changes.detail}" if changes.detail else str(changes.full_read)


def _store(disk: VirtualDisk) -> str:
    return split_path(disk.path or "")[0]


READY: Final = StepKind("restore.ready", ReadyRequest, make_ready)
ATTACH: Final = StepKind("restore.attach", AttachRequest, attach)
