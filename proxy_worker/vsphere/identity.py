"""vSphere's VMs and disks in the contract's words."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from proxy_worker.contract.names import is_name
from proxy_worker.contract.specification import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.model import Inventory, Vm

_PATH: Final = re.compile(r"\[(?P<datastore>[^\]]+)\] (?P<path>.+)")


def vm_identity(vm: Vm) -> VmIdentity:
    """Filed under its instance uuid, which survives renames and moves; by name only where it has none."""
    if vm.instance_uuid is None:
        return VmIdentity.of_name(vm.name)
    return VmIdentity(vm_id=vm.instance_uuid.lower(), name=vm.name)


def disk_address(path: str | None) -> DiskAddress:
    """`[ds1] web/web.vmdk` as datastore and path; raises ValueError if proxies can't name the datastore so."""
    found = _PATH.fullmatch(path or "")
    if found is None or not is_name(found["datastore"]):
        raise ValueError(f"{path} is in a datastore whose name has characters that a fleet file can't have")
    return DiskAddress(datastore=found["datastore"], path=found["path"])


def disk_identity(disk: VirtualDisk) -> DiskIdentity:
    """A disk by its place, e.g. `scsi0:0`; raises ValueError as `disk_address`."""
    return DiskIdentity(key=disk.place, address=disk_address(disk.path), size_bytes=disk.size_bytes)


def inventory_vm(inventory: Inventory, vm: Vm) -> InventoryVm:
    """A VM with the disks that a snapshot covers, or with the problem that keeps it from being protected."""
    covered = [disk for disk in vm.disks if disk.obstacle is None]
    problem = _problem(inventory, vm, covered)
    identities, configuration = [], []
    try:
        identities = [disk_identity(disk) for disk in covered]
        configuration = [disk_address(vm.configuration_path)] if vm.configuration_path else []
    except (ValueError, ValidationError) as error:
        problem = problem or str(error)
    return InventoryVm(
        identity=vm_identity(vm),
        disks=tuple(identities) if problem is None else (),
        configuration=tuple(configuration) if problem is None else (),
        problem=problem,
    )


def _problem(inventory: Inventory, vm: Vm, covered: list[VirtualDisk]) -> str | None:
    if vm.connection != "connected":
        return f"vCenter shows it as {vm.connection}"
    if vm.unreadable:
        return f"the account can't read its {next(iter(vm.unreadable))}"
    host = inventory.hosts.get(vm.host or "")
    if host is not None and host.obstacle is not None:
        return host.obstacle
    stores = [inventory.datastores[ref] for ref in vm.datastores if ref in inventory.datastores]
    if lost := next((store.name for store in stores if not store.accessible), None):
        return f"datastore {lost} is inaccessible"
    return _uncovered(vm, covered)


def _uncovered(vm: Vm, covered: list[VirtualDisk]) -> str | None:
    if not vm.disks:
        return "it has no disks"
    if not covered:
        return f"{vm.disks[0].place}: {vm.disks[0].obstacle}"
    return None
