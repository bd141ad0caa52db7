"""vSphere's VMs in the contract's words, and what keeps one from being protected."""

from __future__ import annotations

import re
from typing import Final

from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.vsphere.model import Inventory, Vm

_PATH: Final = re.compile(r"\[(?P<datastore>[^\]]+)\] (?P<path>.+)")


def vm_identity(vm: Vm) -> VmIdentity:
    """Filed under its instance uuid, which survives renames and moves; by name only where it has none."""
    if vm.instance_uuid is None:
        return VmIdentity.of_name(vm.name)
    return VmIdentity(vm_id=vm.instance_uuid.lower(), name=vm.name)


def split_path(path: str) -> tuple[str, str]:
    """`[ds1] web/web.vmdk` as datastore and path within it; raises ValueError if it isn't of that form."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise ValueError(f"{path!r} is no path on a datastore")
    return found["datastore"], found["path"]


def problem_of(inventory: Inventory, vm: Vm) -> str | None:
    """Why this VM can't be protected as it stands, or None; a disk that no snapshot covers is no such reason."""
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
    return None if vm.disks else "it has no disks"
