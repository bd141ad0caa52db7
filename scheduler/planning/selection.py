"""From what a job says and the VMs there are to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from scheduler.planning.candidates import Candidate
from scheduler.planning.criteria import Criteria, DiskExclusion
from scheduler.planning.matching import excludes, is_pattern, matches, takes

_LONGEST_NAME: Final = 255
_ONLY_TEMPLATES: Final = "it matches templates only, which the job leaves out unless it says `templates = true`"


@dataclass(frozen=True)
class PlannedVm:
    """A VM run to be: at least one disk."""

    identity: VmIdentity
    disks: tuple[DiskIdentity, ...]
    configuration: tuple[DiskAddress, ...]
    vcenter: str | None = None
    """The vCenter that has it; None: its disks can be read without one."""
    ref: str | None = None
    """Its managed object id there."""
    warning: str | None = None
    """Which of its disks can't be had, though nobody excluded them."""


@dataclass(frozen=True)
class Unplanned:
    """Something the job asks for and can't have."""

    name: str
    """The VM, pattern, selector, vCenter or datastore."""
    reason: str
    vm_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a run does, in a stable order, and what it can't do."""

    vms: tuple[PlannedVm, ...]
    unplanned: tuple[Unplanned, ...]


def plan(patterns: Sequence[str], criteria: Criteria, candidates: Iterable[Candidate]) -> Plan:
    """Choose the VMs that `patterns` name or `criteria` select and don't exclude, each once, in order of name.

    A pattern or selector that matches nothing, a VM with a problem or without a disk that can be read, and a VM
    that has the id of another one are unplanned, by name; the rest is not affected by them. Disks that no
    snapshot covers are left out with a warning, those that are excluded without one.
    """
    everything = sorted(candidates, key=lambda vm: (vm.identity.name, vm.identity.vm_id, vm.vcenter or ""))
    unplanned = list(_empty_handed(patterns, criteria, everything))
    exclusions = [DiskExclusion.parse(text) for text in criteria.exclude_disks]
    chosen: dict[str, PlannedVm] = {}
    first: dict[str, Candidate] = {}
    for vm in everything:
        if not belongs(vm, patterns, criteria):
            continue
        identity = vm.identity
        namesake = first.setdefault(identity.vm_id, vm)
        if namesake != vm:
            unplanned.append(Unplanned(identity.name, _same_id(vm, namesake), identity.vm_id))
            continue
        planned = _planned(vm, exclusions)
        if isinstance(planned, Unplanned):
            unplanned.append(planned)
        else:
            chosen.setdefault(identity.vm_id, planned)
    if not chosen and not unplanned:
        unplanned.append(Unplanned("no VM", "all VMs that the job selects are excluded from it"))
    return Plan(tuple(chosen.values()), tuple(dict.fromkeys(unplanned)))


def belongs(vm: Candidate, patterns: Iterable[str], criteria: Criteria) -> bool:
    """Whether a job that says this takes `vm`, as far as it can be had."""
    return (
        (criteria.templates or not vm.template)
        and (
            any(matches(vm.identity.name, pattern) for pattern in patterns)
            or any(takes(selector, vm) for selector in criteria.select)
        )
        and not any(takes(selector, vm) for selector in criteria.exclude)
    )


def _empty_handed(
    patterns: Iterable[str], criteria: Criteria, everything: Sequence[Candidate]
) -> Iterator[Unplanned]:
    """Patterns and selectors that match no VM that could belong to the job, excluded or not."""
    for pattern in dict.fromkeys(patterns):
        found = [vm for vm in everything if matches(vm.identity.name, pattern)]
        nothing = f"no VM matches {pattern!r}" if is_pattern(pattern) else "no VM has that name"
        yield from _unless_any(pattern, found, criteria, nothing)
    for selector in dict.fromkeys(criteria.select):
        found = [vm for vm in everything if takes(selector, vm)]
        yield from _unless_any(str(selector), found, criteria, "no VM matches that selection")


def _unless_any(name: str, found: Sequence[Candidate], criteria: Criteria, nothing: str) -> Iterator[Unplanned]:
    if all(vm.template for vm in found) and not (found and criteria.templates):
        yield Unplanned(name[:_LONGEST_NAME], _ONLY_TEMPLATES if found else nothing)


def _planned(vm: Candidate, exclusions: Sequence[DiskExclusion]) -> PlannedVm | Unplanned:
    """The VM run that `vm` comes to, or why there is none."""
    wanted = [disk for disk in vm.disks if not any(excludes(exclusion, vm, disk) for exclusion in exclusions)]
    covered = [disk for disk in wanted if disk.obstacle is None]
    missing = [f"{disk.identity.key} is left out: {disk.obstacle}" for disk in wanted if disk.obstacle is not None]
    keys = [disk.identity.key for disk in covered]
    reason = vm.problem
    if reason is None and not vm.disks:
        reason = "it has no disks"
    elif reason is None and not wanted:
        reason = "all its disks are excluded"
    elif reason is None and not covered:
        reason = "none of its disks can be had: " + "; ".join(missing)
    elif reason is None and len(set(keys)) < len(keys):
        reason = f"its disk {next(key for key in keys if keys.count(key) > 1)} appears twice"
    elif reason is None and (encrypted := [disk.identity.key for disk in covered if disk.encrypted]):
        reason = f"vSphere encrypts its disk {encrypted[0]}, which proxies can't read then; decrypt or exclude it"
    if reason is not None:
        return Unplanned(vm.identity.name, reason, vm.identity.vm_id)
    return PlannedVm(
        identity=vm.identity,
        disks=tuple(disk.identity for disk in covered),
        configuration=vm.configuration,
        vcenter=vm.vcenter,
        ref=vm.ref,
        warning="; ".join(missing) or None,
    )


def _same_id(vm: Candidate, namesake: Candidate) -> str:
    same = f"it has the same id as VM {namesake.identity.name!r} ({vm.identity.vm_id})"
    if vm.vcenter is not None and namesake.vcenter is not None:
        return f"{same} of vCenter {namesake.vcenter}: exclude one of them, or give it an instance uuid of its own"
    return f"{same}: a copied VMX keeps uuid.bios; give the copy one of its own"
