"""An existing VM made ready to have its disks written: powered off, without snapshots, and what changed known.

Writing goes beneath change tracking, which would tell the next backup that nothing has changed. So tracking is
switched off before the first byte, and on again at the end, when it counts anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.changed_blocks import ChangeBase, Changes, FullRead, changes_since
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.power import switch_off
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, adopt, create, remove
from proxy_worker.vsphere.tasks import Waiting, finish


class VmInUseError(ConflictError):
    """A VM whose disks are to be written runs, is a template, or has snapshots."""


class DiskMismatchError(ConflictError):
    """A VM has no disk at that place which could be written, or one of another size."""


def require_idle(vm: Vm, mark: Mark, *, may_be_on: bool) -> None:
    """Raise `VmInUseError` unless the VM's disks can be written; our own snapshot under `mark` is no obstacle."""
    others = [node for node in vm.snapshots if Mark.of(node) != mark]
    if vm.template:
        raise VmInUseError(f"VM {vm.name}", why="it is a template", remedy="Restore it under another --name.")
    if others:
        raise VmInUseError(
            f"VM {vm.name}",
            why=f"it has the snapshot {others[0].name!r}, and what is beneath a snapshot can't be written",
            remedy="Remove its snapshots first, or wait for its backup; or restore it under another --name.",
        )
    if vm.powered_on and not may_be_on:
        raise VmInUseError(
            f"VM {vm.name}", why="it is powered on", remedy="Power it off, or say --power-off to have it done."
        )


def require_disk(vm: Vm, place: str, size_bytes: int) -> VirtualDisk:
    """The VM's disk at `place`, of that size, or `DiskMismatchError`."""
    disk = next((disk for disk in vm.disks if disk.place == place), None)
    what = f"disk {place} of VM {vm.name}"
    remedy = "Restore it as a new disk, or the VM under another --name."
    if disk is None:
        has = ", ".join(one.place for one in vm.disks) or "no disks"
        raise DiskMismatchError(what, why=f"the VM has {has}", remedy=remedy)
    if disk.path is None or disk.provisioning.startswith("raw"):
        raise DiskMismatchError(what, why="it is a raw device mapping", remedy=remedy)
    if disk.size_bytes != size_bytes:
        why = f"it has {disk.size_bytes} bytes, the one in the restore point {size_bytes}"
        raise DiskMismatchError(what, why=why, remedy=remedy)
    return disk


def power_off(session: Session, vm: Vm, waiting: Waiting | None = None) -> Vm:
    """The VM, powered off if it was on."""
    return read_vm(session, vm.ref) if switch_off(session, vm.ref, vm.name, waiting) else vm


def changed_since(
    session: Session, vm: Vm, mark: Mark, bases: Mapping[str, ChangeBase], waiting: Waiting | None = None
) -> Mapping[str, Changes]:
    """What changed on a powered-off VM's disks since `bases`, by place; any doubt is in the answer.

    Asked by way of a snapshot, which lives for that long only; one that a crash leaves carries `mark`.
    """
    if not vm.tracks_changes:
        return {place: Changes(None, FullRead.OFF) for place in bases}
    made = adopt(session, vm, mark) or create(session, vm, mark, Quiesce.NEVER, waiting)
    try:
        frozen = {disk.place: disk for disk in made.disks}
        return {
            place: changes_since(session, vm.ref, made.ref, frozen[place], base)
            for place, base in bases.items()
            if place in frozen
        }
    finally:
        remove(session, vm.ref, made.ref, mark.installation, waiting)


def stop_tracking(session: Session, vm: Vm, waiting: Waiting | None = None) -> bool:
    """Switch change tracking off; False if it is off."""
    if not vm.tracks_changes:
        return False
    machine = vim.VirtualMachine(vm.ref, session.stub)
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=False)
    what = f"switching off changed block tracking of {vm.name}"
    finish(session, what, lambda: machine.ReconfigVM_Task(spec), waiting)
    return True
