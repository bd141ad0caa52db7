"""Where the replicas of VMs go, and which VMs can have one; pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from proxy_worker.contract.replication import DEFAULT_STREAMS, Folder, ReplicaPlace, Streams
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, Name
from scheduler.planning.criteria import Pattern
from scheduler.planning.selection import PlannedVm

MOST_POINTS: Final = 28
_NAMESPACE: Final = uuid.UUID("0b2fd0b2-51a8-4f4c-93a7-6a3a3f6de2a4")
"""Of the uuids of replicas: a copy that kept its original's couldn't be told apart from it."""
_NOT_IN_FOLDERS: Final = re.compile(r"^\.|[/\x00-\x1f]")
_LONGEST_FOLDER: Final = 255


class ReplicaTerms(BaseModel):
    """Where a replication job's replicas go, and what they are like."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    datastore: Name
    """The datastore that they lie on, each in a folder of its own; or, where a vCenter has it, as VMs of that."""
    suffix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,40}$")] = "_replica"
    """What their names have after the originals'."""
    networks: dict[str, str] = Field(default_factory=dict)
    """Names of networks: the originals' to the replicas'; others keep their names."""
    mapped: dict[str, Folder] = Field(default_factory=dict)
    """Existing VMs that become replicas: an original's name to the existing VM's folder in the datastore."""
    seed: Name | None = None
    """A repository whose newest restore points new replicas begin with, so that less has to be sent."""
    points: Annotated[int, Field(ge=1, le=MOST_POINTS)] = 7
    """How many restore points of each replica are kept."""
    proxies: tuple[Pattern, ...] | None = None
    """The only proxies that may write them, by name or pattern; without this key, whoever has the datastore."""
    streams: Streams = DEFAULT_STREAMS
    """How many pieces of one disk are sent at a time, each over a connection of its own."""

    def does_without(self, datastore: str) -> bool:
        """Whether a datastore's VMs need not be known: a target in which nothing lies yet looks like one that isn't
        mounted."""
        return datastore == self.datastore and not self.mapped


@dataclass(frozen=True, slots=True)
class PlannedReplica:
    """What a VM's replica is, or will be."""

    name: str
    place: ReplicaPlace
    mapped: bool
    disks: tuple[DiskIdentity, ...]
    """In the order of the original's."""
    original_place: ReplicaPlace
    """Of an original in a vCenter, which has no folder here: its vCenter, and its id."""
    replaced_uuid: str | None
    """The `uuid.bios` that it gets; None where it was a VM before."""


def planned_replica(
    vm: PlannedVm,
    terms: ReplicaTerms,
    there: Mapping[ReplicaPlace, InventoryVm],
    known: PlannedReplica | None = None,
) -> PlannedReplica | str:
    """Where a VM's replica goes; or why it can't have one.

    `there` are the VMs of the target's datastore by their folders, `known` is the replica that the VM has already.
    """
    if vm.vcenter is not None:
        original: ReplicaPlace | None = ReplicaPlace(datastore=vm.vcenter, folder=vm.identity.vm_id)
    else:
        original = place_of(vm.configuration)
    if original is None:
        return "it has no VMX in a datastore, which its replica's would be made from"
    name, folder, mapped = _named(vm.identity.name, terms, known)
    place = ReplicaPlace(datastore=terms.datastore, folder=folder)
    if place == original:
        return f"its replica would be itself: it lies in {folder} of datastore {terms.datastore}"
    if mapped:
        disks = _disks_of_mapped(vm, place, there)
        if isinstance(disks, str):
            return disks
    else:
        disks = _disks_of_own(vm, place, known.disks if known is not None and known.place == place else ())
    made = None if mapped else str(uuid.uuid5(_NAMESPACE, f"{terms.datastore}/{folder}/{vm.identity.vm_id}"))
    return PlannedReplica(name, place, mapped, disks, original, made)


def by_place(vms: Iterable[InventoryVm], datastore: str) -> dict[ReplicaPlace, InventoryVm]:
    """VMs that lie in a datastore, by their folders."""
    found: dict[ReplicaPlace, InventoryVm] = {}
    for vm in vms:
        place = place_of(vm.configuration)
        if place is not None and place.datastore == datastore:
            found.setdefault(place, vm)
    return found


def place_of(configuration: Iterable[DiskAddress]) -> ReplicaPlace | None:
    """The folder of a VM, by the files of its configuration; None where it has none in a datastore, or one that has
    a name which no replica's place may have."""
    for file in configuration:
        if file.datastore is not None and file.path is not None and "/" in file.path:
            with suppress(ValidationError):
                return ReplicaPlace(datastore=file.datastore, folder=file.path.partition("/")[0])
    return None


def surplus(points: Sequence[str], keep: int) -> Sequence[str]:
    """Which restore points, given oldest first, are too many."""
    return points[: max(0, len(points) - max(1, keep))]


def _named(original: str, terms: ReplicaTerms, known: PlannedReplica | None) -> tuple[str, str, bool]:
    """A replica's name and folder, and whether it is mapped. One that is there stays where it is, whatever its
    original and those after it are called, unless the job says another datastore or maps it elsewhere."""
    mapped = terms.mapped.get(original)
    if mapped is not None:
        return mapped, mapped, True
    if known is not None and known.place.datastore == terms.datastore:
        folder = known.place.folder
        if not known.mapped or folder in terms.mapped.values():  # for the name that its original had
            return known.name, folder, known.mapped
    name = f"{original}{terms.suffix}"
    return name, _NOT_IN_FOLDERS.sub("_", name)[:_LONGEST_FOLDER], False


def _disks_of_own(vm: PlannedVm, place: ReplicaPlace, known: Sequence[DiskIdentity]) -> tuple[DiskIdentity, ...]:
    paths = {disk.key: disk.address.path for disk in known}
    free = (f"{place.folder}/{place.folder}{f'_{n}' if n else ''}.vmdk" for n in range(len(paths) + len(vm.disks)))
    unused = (path for path in free if path not in paths.values())
    return tuple(
        DiskIdentity(
            key=disk.key,
            address=DiskAddress(datastore=place.datastore, path=paths.get(disk.key) or next(unused)),
            size_bytes=disk.size_bytes,
        )
        for disk in vm.disks
    )


def _disks_of_mapped(
    vm: PlannedVm, place: ReplicaPlace, there: Mapping[ReplicaPlace, InventoryVm]
) -> tuple[DiskIdentity, ...] | str:
    existing = there.get(place)
    if existing is None:
        return f"no VM lies in {place.folder} of datastore {place.datastore}, which it is mapped to"
    if existing.identity.vm_id == vm.identity.vm_id:
        return f"the VM in {place.folder} of datastore {place.datastore}, which it is mapped to, has its id"
    disks: Mapping[str, DiskIdentity] = {disk.key: disk for disk in existing.disks}
    for disk in vm.disks:
        other = disks.get(disk.key)
        if other is None or other.address.datastore != place.datastore:
            return f"the VM in {place.folder}, which it is mapped to, has no disk {disk.key} in {place.datastore}"
        if other.size_bytes != disk.size_bytes:
            return (
                f"disk {disk.key} of the VM in {place.folder}, which it is mapped to, has {other.size_bytes} bytes "
                f"and not {disk.size_bytes}"
            )
    return tuple(disks[disk.key] for disk in vm.disks)
