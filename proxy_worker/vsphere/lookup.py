"""Finding one VM again, and what it lies on: a constant number of calls, whatever else the vCenter has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyVmomi import vim

from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.inventory import read_vm, unescaped
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.properties import read, reference
from proxy_worker.vsphere.session import Session


def find_vm(session: Session, ref: str, vm_id: str, name: str) -> Vm:
    """The VM with the managed object id `ref`, or where it is now if that id is gone or another VM's.

    `vm_id` is its instance uuid in lower case, which survives renames, moves and being registered anew; anything
    else is the id of a VM that has none. Raises `VsphereObjectGoneError` if it doesn't exist any more.
    """
    try:
        found = read_vm(session, ref)
    except VsphereObjectGoneError:
        found = None
    if found is not None and (found.instance_uuid or vm_id).lower() == vm_id:
        return found
    moved = session.call(
        f"looking for VM {name} of vCenter {session.endpoint.name}",
        lambda: reference(session.content.searchIndex.FindByUuid(None, vm_id, True, True)),
        repeatable=True,
    )
    if moved is None:
        raise VsphereObjectGoneError(
            f"VM {name}",
            why=f"vCenter {session.endpoint.name} has no VM {ref} and none with its instance uuid any more",
            remedy="It was deleted or unregistered; if it still exists, rescan the inventory.",
        )
    return read_vm(session, moved)


def datastore_types(session: Session, datastores: Sequence[str]) -> Mapping[str, str]:
    """Types of datastores by their names, e.g. `VMFS`; `datastores` are managed object ids."""
    targets = [vim.Datastore(ref, session.stub) for ref in datastores]
    found = session.call(
        f"reading datastores of vCenter {session.endpoint.name}",
        lambda: read(session, targets, ("name", "summary.type")),
        repeatable=True,
    )
    return {unescaped(one["name"] or one.ref): one["summary.type"] or "unknown" for one in found}


def configuration_files(session: Session, vm: Vm) -> tuple[str, ...]:
    """The files of a VM's configuration: its VMX, and its NVRAM where vCenter lists one; `[datastore] path`."""
    machine = vim.VirtualMachine(vm.ref, session.stub)
    found = session.call(
        f"reading the files of {vm.name}", lambda: read(session, [machine], ("layoutEx.file",)), repeatable=True
    )
    nvram = [file.name for file in found[0]["layoutEx.file"] or () if file.type == "nvram"]
    return tuple(path for path in (vm.configuration_path, *nvram) if path)


def devices_of(session: Session, vm: str) -> list[Any]:
    """The virtual devices of a VM, by its managed object id."""
    found = session.call(
        f"reading the devices of {vm}",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], ["config.hardware.device"]),
        repeatable=True,
    )
    return list(found[0]["config.hardware.device"] or ())
