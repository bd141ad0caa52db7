"""The step `snapshot`: freeze a VM's disks, and ask what changed on them since their last restore point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import Quiesce
from proxy_worker.contract.subjects import DiskAddress, Extent, Frozen, VsphereDisk, VsphereFile
from proxy_worker.vsphere.changed_blocks import (
    ChangeBase,
    Changes,
    ChangeTrackingError,
    FullRead,
    areas_in_use,
    base_of,
    changes_since,
    enable,
)
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.faults import MissingPrivilegeError, VsphereError
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.lookup import configuration_files, datastore_types, find_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.snapshots import Mark, adopt, create
from scheduler.planning.places import TrackingMark
from scheduler.vcenters.areas import bounded
from scheduler.vcenters.steps import Access, StepKind

_TEMPLATE: Final = "a template has no snapshots, so nothing tells what changed"


class NoDiskLeftError(ConflictError):
    """A VM has no disk any more that a snapshot covers and the job wants."""


class Base(Frozen):
    """What changes are relative to: a restore point, and where change tracking of the disk stood there."""

    point: str
    mark: TrackingMark


class SnapshotRequest(Frozen):
    """Which VM to freeze, and how."""

    vm_ref: str
    vm_id: str
    vm_name: str
    journal: str
    """The entry of the journal of snapshots: what it is marked with."""
    datacenter: str | None = None
    quiesce: Quiesce = Quiesce.PREFER
    excluded_disks: tuple[str, ...] = ()
    windows: bool = False
    declared: dict[str, str] = Field(default_factory=dict)
    """Declared datastores of this vCenter: what it calls each -> what the fleet file does."""
    bases: dict[str, Base] = Field(default_factory=dict)
    """By disk key."""
    former_disks: tuple[str, ...] = ()
    """Keys of the newest restore point's disks."""


class FrozenDisk(Frozen):
    """A disk to be read."""

    key: str
    address: DiskAddress
    size_bytes: int
    changed_areas: tuple[Extent, ...] | None = None
    """Since `parent`; without one, those that have ever been written."""
    parent: str | None = None
    full_read_reason: str | None = None
    tracking: TrackingMark | None = None
    """What the next run's changes can be relative to."""


class SnapshotMade(Frozen):
    """A VM whose disks stand still."""

    vm_ref: str
    snapshot: str | None
    """None for a template, whose disks stand still anyway."""
    quiesced: bool
    warnings: tuple[str, ...]
    disks: tuple[FrozenDisk, ...]
    configuration: tuple[DiskAddress, ...]
    datastores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Still:
    """A VM's disks as they stand still."""

    snapshot: str | None
    quiesced: bool
    warning: str | None
    disks: tuple[VirtualDisk, ...]
    untracked: str | None
    """Why change tracking couldn't be switched on."""


def freeze(access: Access, request: SnapshotRequest) -> SnapshotMade:
    """Make the snapshot, or adopt the one that an earlier try made; named errors say why there is none."""
    session = access.session
    vm = find_vm(session, request.vm_ref, request.vm_id, request.vm_name)
    if vm.template:
        still = _Still(None, quiesced=False, warning=None, disks=vm.disks, untracked=_TEMPLATE)
    else:
        still = _snapshot(access, vm, request)
    types = datastore_types(session, vm.datastores)
    wanted = [disk for disk in still.disks if disk.obstacle is None and disk.place not in request.excluded_disks]
    if not wanted:
        raise NoDiskLeftError(
            f"snapshot of {vm.name}",
            why="it has no disk any more that a snapshot covers and the job wants",
            remedy="Look at its disks and at what the job excludes.",
        )
    return SnapshotMade(
        vm_ref=vm.ref,
        snapshot=still.snapshot,
        quiesced=still.quiesced,
        warnings=_warnings(still, request),
        disks=tuple(_frozen(access, request, vm, still, disk, types=types) for disk in wanted),
        configuration=_configuration(access, vm, request),
        datastores=tuple(types),
    )


def _snapshot(access: Access, vm: Vm, request: SnapshotRequest) -> _Still:
    mark = Mark(access.installation, request.journal)
    made, untracked = adopt(access.session, vm, mark), None
    if made is not None:
        quiescing = request.quiesce is not Quiesce.NEVER and not made.quiesced
        warning = "it was made before the scheduler was restarted, and isn't quiesced" if quiescing else None
    else:
        untracked = _track(access, vm)
        made = create(access.session, vm, mark, request.quiesce, access.waiting)
        warning = made.warning
    return _Still(made.ref, made.quiesced, warning, made.disks, untracked)


def _track(access: Access, vm: Vm) -> str | None:
    """Switch change tracking on; the reason where that can't be, which costs time, and fails no run."""
    try:
        enable(access.session, vm, access.waiting)
    except (ChangeTrackingError, MissingPrivilegeError, VsphereError) as error:
        return str(error)
    return None


def _frozen(
    access: Access,
    request: SnapshotRequest,
    vm: Vm,
    still: _Still,
    disk: VirtualDisk,
    *,
    types: Mapping[str, str],
) -> FrozenDisk:
    datastore, path = split_path(disk.path or "")
    base = request.bases.get(disk.place)
    changes = _changes(access, vm, still, disk, base)
    known = base is not None and changes.areas is not None
    told = changes if known else _in_use(access, vm, still, disk, changes)
    vsphere = VsphereDisk(
        vcenter=access.account.reference,
        vm=vm.ref,
        snapshot=still.snapshot,
        key=disk.key,
        path=disk.path or "",
        uuid=disk.uuid,
        controller=disk.controller,
        datastore_type=types.get(datastore, "unknown"),
        template=vm.template,
        earlier_snapshots=any(node.ref != still.snapshot for node in vm.snapshots),
        quiesced_windows=still.quiesced and request.windows,
    )
    return FrozenDisk(
        key=disk.place,
        address=DiskAddress(datastore=request.declared.get(datastore), path=path, vsphere=vsphere),
        size_bytes=disk.size_bytes,
        changed_areas=bounded(told.areas, disk.size_bytes) if told.areas is not None else None,
        parent=base.point if base is not None and known else None,
        full_read_reason=None if known else _reason(changes, told, still.untracked),
        tracking=_mark(disk),
    )


def _changes(access: Access, vm: Vm, still: _Still, disk: VirtualDisk, base: Base | None) -> Changes:
    if still.snapshot is None:
        return Changes(None, FullRead.OFF)
    since = None
    if base is not None:
        since = ChangeBase(base.mark.change_id, base.mark.disk_uuid, base.mark.size_bytes)
    try:
        return changes_since(access.session, vm.ref, still.snapshot, disk, since)
    except (MissingPrivilegeError, VsphereError) as error:
        return Changes(None, FullRead.STALE, str(error))


def _in_use(access: Access, vm: Vm, still: _Still, disk: VirtualDisk, changes: Changes) -> Changes:
    """Which areas have ever been written, for a disk of which nobody can tell what changed."""
    if still.snapshot is None or changes.full_read is FullRead.INCOMPLETE:
        return changes
    try:
        return areas_in_use(access.session, vm.ref, still.snapshot, disk)
    except (MissingPrivilegeError, VsphereError) as error:
        return Changes(None, FullRead.UNTOLD, str(error))


def _mark(disk: VirtualDisk) -> TrackingMark | None:
    found = base_of(disk)
    if found is None:
        return None
    return TrackingMark(change_id=found.change_id, disk_uuid=found.disk_uuid, size_bytes=found.size_bytes)


def _reason(changes: Changes, told: Changes, untracked: str | None) -> str:
    if untracked is not None and changes.full_read in {FullRead.OFF, FullRead.FIRST}:
        return untracked
    said = _said(changes)
    return said if told.areas is not None or told.full_read is changes.full_read else f"{said}; {_said(told)}"


def _said(changes: Changes) -> str:
    return f"{changes.full_read}: {changes.detail}" if changes.detail else str(changes.full_read)


def _warnings(still: _Still, request: SnapshotRequest) -> tuple[str, ...]:
    found = []
    if still.warning is not None:
        found.append(f"the snapshot is only crash-consistent: {still.warning}")
    present = {disk.place for disk in still.disks}
    found += [
        f"disk {key} of the last restore point isn't in the VM any more"
        for key in request.former_disks
        if key not in present
    ]
    found += [
        f"{disk.place} is left out: {disk.obstacle}"
        for disk in still.disks
        if disk.obstacle is not None and disk.place not in request.excluded_disks
    ]
    return tuple(found)


def _configuration(access: Access, vm: Vm, request: SnapshotRequest) -> tuple[DiskAddress, ...]:
    if request.datacenter is None:
        return ()  # an ESXi host's folders go by another name
    files = configuration_files(access.session, vm)
    of = access.account.reference
    return tuple(
        DiskAddress(vsphere_file=VsphereFile(vcenter=of, datacenter=request.datacenter, path=path))
        for path in files
    )


SNAPSHOT: Final = StepKind("snapshot", SnapshotRequest, freeze)
