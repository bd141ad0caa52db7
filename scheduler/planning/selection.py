"""From name patterns and an inventory to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy_worker.contract.specification import DiskAddress, DiskIdentity, InventoryVm, VmIdentity

_PATTERN_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class PlannedVm:
    """A VM run to be: at least one disk."""

    identity: VmIdentity
    disks: tuple[DiskIdentity, ...]
    configuration: tuple[DiskAddress, ...]


@dataclass(frozen=True)
class Unplanned:
    """Something the job asks for and can't have."""

    name: str
    """The VM, pattern or datastore."""
    reason: str
    vm_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a run does, in a stable order, and what it can't do."""

    vms: tuple[PlannedVm, ...]
    unplanned: tuple[Unplanned, ...]


def is_pattern(text: str) -> bool:
    """Whether `text` may match several names, rather than being one."""
    return not _PATTERN_CHARACTERS.isdisjoint(text)


def needs_inventory(patterns: Iterable[str], declared: Iterable[str]) -> bool:
    """Whether datastores have to be scanned: not when every VM is named in full and declared with its disks."""
    known = set(declared)
    return any(is_pattern(pattern) or pattern not in known for pattern in patterns)


def plan(patterns: Sequence[str], inventory: Iterable[InventoryVm]) -> Plan:
    """Choose the VMs that `patterns` name, each once, in order of name.

    Patterns are shell patterns over whole names, case-sensitive. A pattern that matches nothing, a VM with a
    problem or without disks, and a VM that has the id of another one are unplanned, by name; the rest is not
    affected by them.
    """
    everything = sorted(inventory, key=lambda vm: (vm.identity.name, vm.identity.vm_id))
    unplanned = [
        Unplanned(pattern, f"no VM matches {pattern!r}" if is_pattern(pattern) else "no VM has that name")
        for pattern in dict.fromkeys(patterns)
        if not any(_matches(vm, pattern) for vm in everything)
    ]
    chosen: dict[str, PlannedVm] = {}
    first: dict[str, InventoryVm] = {}
    for vm in everything:
        if not any(_matches(vm, pattern) for pattern in patterns):
            continue
        identity = vm.identity
        reason = _obstacle(vm, first.get(identity.vm_id))
        first.setdefault(identity.vm_id, vm)
        if reason is None:
            chosen.setdefault(identity.vm_id, PlannedVm(identity, vm.disks, vm.configuration))
        else:
            unplanned.append(Unplanned(identity.name, reason, identity.vm_id))
    return Plan(tuple(chosen.values()), tuple(unplanned))


def _matches(vm: InventoryVm, pattern: str) -> bool:
    return vm.identity.name == pattern or fnmatchcase(vm.identity.name, pattern)


def _obstacle(vm: InventoryVm, namesake: InventoryVm | None) -> str | None:
    """Why `vm` can't be planned; `namesake` is the VM that has its id already."""
    if vm.problem is not None:
        return vm.problem
    if namesake is not None and namesake != vm:
        return (
            f"it has the same id as VM {namesake.identity.name!r} ({vm.identity.vm_id}): "
            "a copied VMX keeps uuid.bios; give the copy one of its own"
        )
    if not vm.disks:
        return "it has no disks"
    keys = [disk.key for disk in vm.disks]
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    return f"its disk {repeated} appears twice" if repeated is not None else None
