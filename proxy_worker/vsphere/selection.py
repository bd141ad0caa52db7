"""What jobs select VMs by: where each VM is, and what people say of it. Which a job takes is the scheduler's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy_worker.vsphere.model import Inventory, Place, PlaceKind, Vm
from proxy_worker.vsphere.tags import Tag

_ROOT_OF_VMS: Final = "vm"
_ROOT_OF_POOLS: Final = "Resources"


@dataclass(frozen=True, slots=True)
class VmFacts:
    """A VM as selections see it. Paths have slashes and no hidden folders: `DC0/Linux/web`."""

    vm: Vm
    datacenter: str | None
    """Its path, with the folders that it is in."""
    folder: str
    """Datacentre and folders the VM is in, or below."""
    cluster: str | None
    """The cluster, or the host that is in none."""
    pool: str | None
    """Resource pools below the cluster's own, or "" if it is directly there; None for a template."""
    host: str | None
    datastores: tuple[str, ...]
    tags: tuple[Tag, ...]


def facts(inventory: Inventory, tags: Mapping[str, tuple[Tag, ...]]) -> tuple[VmFacts, ...]:
    """The facts of every VM, in the order of names; `tags` by managed object id, as `read_tags` gives them."""
    found = [_facts(inventory, vm, tags.get(vm.ref, ())) for vm in inventory.vms.values()]
    return tuple(sorted(found, key=lambda fact: (fact.vm.name, fact.vm.ref)))


def _facts(inventory: Inventory, vm: Vm, tags: tuple[Tag, ...]) -> VmFacts:
    folders = list(inventory.ancestors(vm.folder))
    pools = list(inventory.ancestors(vm.pool))
    host = inventory.hosts.get(vm.host or "")
    cluster = _first(pools, PlaceKind.CLUSTER)
    if cluster is None and host is not None:
        cluster = _first(inventory.ancestors(host.cluster), PlaceKind.CLUSTER)
    inner = [place.name for place in pools if place.kind is PlaceKind.POOL and not _is_root_pool(inventory, place)]
    return VmFacts(
        vm=vm,
        datacenter=_datacenter(folders) or _datacenter(pools),
        folder="/".join(place.name for place in reversed(folders) if not _is_hidden(inventory, place)),
        cluster=cluster,
        pool="/".join(reversed(inner)) if pools else None,
        host=host.name if host else None,
        datastores=tuple(inventory.datastores[ref].name for ref in vm.datastores if ref in inventory.datastores),
        tags=tags,
    )


def _datacenter(places: Sequence[Place]) -> str | None:
    """The path of the datacentre among `places`, which go from inside out."""
    at = next((at for at, place in enumerate(places) if place.kind is PlaceKind.DATACENTER), None)
    return None if at is None else "/".join(place.name for place in reversed(places[at:]))


def _first(places: Iterable[Place], kind: PlaceKind) -> str | None:
    return next((place.name for place in places if place.kind is kind), None)


def _is_hidden(inventory: Inventory, place: Place) -> bool:
    """The folder `vm` that every datacentre has, and that the vSphere Client doesn't show."""
    parent = inventory.places.get(place.parent or "")
    return place.name == _ROOT_OF_VMS and parent is not None and parent.kind is PlaceKind.DATACENTER


def _is_root_pool(inventory: Inventory, place: Place) -> bool:
    parent = inventory.places.get(place.parent or "")
    return place.name == _ROOT_OF_POOLS and parent is not None and parent.kind is PlaceKind.CLUSTER
