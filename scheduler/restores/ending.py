"""The steps that end a restore: a VM handed over (`finish`), or what was made deleted again (`undo`, `sweep`)."""

from __future__ import annotations

from typing import Final

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.contract.subjects import DiskKey, Frozen
from proxy_worker.vsphere.changed_blocks import enable
from proxy_worker.vsphere.disk_adding import remove_disks
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.lookup import find_vm
from proxy_worker.vsphere.power import switch_on
from proxy_worker.vsphere.restored import clear, destroy
from proxy_worker.vsphere.snapshots import Mark, remove_marked
from scheduler.restores.making_ready import new_path
from scheduler.state.restoring import VmRestoreKind
from scheduler.vcenters.steps import Access, StepKind


class EndRequest(Frozen):
    """The VM of a restore, and what is to be so in the end."""

    restore: str
    kind: VmRestoreKind
    vm_ref: str | None
    instance_uuid: str
    name: str
    tracks_changes: bool = False
    """Whether change tracking was switched off, and is to be on again."""
    power_on: bool = False
    disks: tuple[DiskKey, ...] = ()
    uuids: tuple[str, ...] = ()
    """Of disks that were added, as far as they were."""
    datastore: str | None = None


class Ended(Frozen):
    """It is so."""

    warnings: tuple[str, ...] = ()


def finish(access: Access, request: EndRequest) -> Ended:
    """Take the mark off and power on; what doesn't spoil the restored disks becomes a warning."""
    session = access.session
    vm = find_vm(session, request.vm_ref or "", request.instance_uuid, request.name)
    warnings = []
    if request.kind is VmRestoreKind.NEW:
        clear(session, vm.ref, f"{access.installation}/{request.restore}", access.waiting)
    if request.tracks_changes:
        try:
            enable(session, vm, access.waiting)
        except CancelledError:
            raise
        except ProxyfleetError as error:
            warnings.append(f"change tracking stays off: {error}")
    if request.power_on:
        try:
            switch_on(session, vm.ref, vm.name, access.waiting)
        except CancelledError:
            raise
        except ProxyfleetError as error:
            warnings.append(f"it isn't powered on: {error}")
    return Ended(warnings=tuple(warnings))


def undo(access: Access, request: EndRequest) -> Ended:
    """Delete what this restore made, and nothing else."""
    session, mark = access.session, Mark(access.installation, request.restore)
    if request.kind is VmRestoreKind.NEW:
        destroy(session, request.instance_uuid, f"{mark.installation}/{mark.journal}", access.waiting)
        return Ended()
    try:
        vm = find_vm(session, request.vm_ref or "", request.instance_uuid, request.name)
    except VsphereObjectGoneError:
        return Ended()
    if request.kind is VmRestoreKind.DISK:
        paths = [new_path(vm, request.datastore, request.restore, key) for key in request.disks]
        remove_disks(session, vm.ref, paths, access.waiting, uuids=request.uuids)
        return Ended()
    remove_marked(session, vm.ref, mark, access.waiting)
    if request.tracks_changes:
        enable(session, read_vm(session, vm.ref), access.waiting)
    return Ended()


FINISH: Final = StepKind("restore.finish", EndRequest, finish)
UNDO: Final = StepKind("restore.undo", EndRequest, undo)
SWEEP: Final = StepKind("restore.sweep", EndRequest, undo)
"""Undone once more, later: a proxy that was frozen while it made the VM may have woken up since."""
