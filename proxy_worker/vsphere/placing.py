"""Where a VM is to be made: names that people give, found in an inventory, or the error that says which isn't.

Pure: decides from an inventory, asks nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxy_worker.contract.errors import ConflictError, NotFoundError
from proxy_worker.vsphere.faults import DatastoreFullError, HostUnavailableError
from proxy_worker.vsphere.model import Datastore, Host, Inventory, Place, PlaceKind


class NoSuchPlaceError(NotFoundError):
    """A vCenter has no host, folder, resource pool, datastore or network of that name."""


class NameTakenError(ConflictError):
    """There is a VM of that name already."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, by name; None where anything will do."""

    name: str
    folder: str | None = None
    """A path below the datacentre, `Linux/web`, with or without the datacentre before it."""
    pool: str | None = None
    """A resource pool or cluster, by name or path `Cluster/pool`."""
    host: str | None = None
    datastore: str | None = None
    disk_datastores: Mapping[str, str] = field(default_factory=dict)
    """By disk key, for disks that go elsewhere."""
    allocated_bytes: Mapping[str, int] = field(default_factory=dict)
    """By disk key, what is taken at once: nothing of a thin disk."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where it goes, in managed object ids."""

    datacenter: str
    """Its path."""
    folder: str
    pool: str
    host: str
    datastore: str
    """Its name."""


def find_spot(inventory: Inventory, wanted: Wanted, otherwise: Wanted) -> Spot:
    """Where `wanted` is, with `otherwise` (the original's place) as far as that exists and fits.

    Raises `NoSuchPlaceError`, `NameTakenError`, `HostUnavailableError`, `DatastoreFullError`.
    """
    hosts = _hosts(inventory, wanted, otherwise)
    stores = _datastores(inventory, wanted, otherwise, hosts)
    needed = {stores[name].ref for name in stores}
    fitting = [host for host in hosts if needed <= _mounted(inventory, host)]
    if not fitting:
        raise NoSuchPlaceError(
            f"place for VM {wanted.name!r}",
            why=f"no host that is in question reaches {' and '.join(sorted(stores))}",
            remedy="Choose a datastore that the host mounts, or another host.",
        )
    host = next((one for one in fitting if one.name == otherwise.host), fitting[0])
    center = _datacenter(inventory, host.cluster)
    folder = _folder(inventory, center, wanted.folder, otherwise.folder)
    _require_free_name(inventory, folder, wanted.name)
    main = wanted.datastore or _kept(otherwise.datastore, stores) or next(iter(stores))
    _require_room(stores, wanted, main)
    pool = _pool(inventory, host, wanted.pool or _kept_pool(inventory, host, otherwise.pool))
    return Spot(_path(inventory, center), folder.ref, pool.ref, host.ref, main)


def _hosts(inventory: Inventory, wanted: Wanted, otherwise: Wanted) -> list[Host]:
    """Hosts that may take it, the best first."""
    if wanted.host is not None:
        named = [host for host in inventory.hosts.values() if host.name == wanted.host]
        if not named:
            raise _missing("host", wanted.host, (host.name for host in inventory.hosts.values()))
        if obstacle := named[0].obstacle:
            raise HostUnavailableError(
                f"VM {wanted.name!r} can't be made on it", why=obstacle, remedy="Choose another host."
            )
        candidates = named
    else:
        candidates = [host for host in inventory.hosts.values() if host.obstacle is None]
    if wanted.pool is not None:
        pools = [place for place in inventory.places.values() if _is_pool(inventory, place, wanted.pool)]
        if not pools:
            raise _missing("resource pool", wanted.pool, _pool_names(inventory))
        clusters = {place.ref for pool in pools for place in inventory.ancestors(pool.ref)}
        candidates = [host for host in candidates if host.cluster in clusters]
    if wanted.folder is not None:
        folders = [one for one in _vm_folders(inventory) if _matches(inventory, one, wanted.folder)]
        if not folders:
            raise _missing("folder", wanted.folder, (_path(inventory, one) for one in _vm_folders(inventory)))
        centers = {_datacenter(inventory, folder.ref).ref for folder in folders}
        candidates = [host for host in candidates if _datacenter(inventory, host.cluster).ref in centers]
    if not candidates:
        raise NoSuchPlaceError(
            f"place for VM {wanted.name!r}", why="no host that is connected is in all the places that were named"
        )
    return sorted(candidates, key=lambda host: (host.name != otherwise.host, host.name))


def _datastores(inventory: Inventory, wanted: Wanted, otherwise: Wanted, hosts: list[Host]) -> dict[str, Datastore]:
    """The datastores that it needs, by name."""
    reached = {ref for host in hosts for ref in _mounted(inventory, host)}
    known = {store.name: store for store in inventory.datastores.values() if store.ref in reached}
    names = dict.fromkeys([*([wanted.datastore] if wanted.datastore else []), *wanted.disk_datastores.values()])
    found = {}
    for name in names:
        everywhere = [store for store in inventory.datastores.values() if store.name == name]
        if not everywhere:
            raise _missing("datastore", name, (store.name for store in inventory.datastores.values()))
        if not any(store.accessible for store in everywhere):
            raise HostUnavailableError(f"datastore {name}", why="it is inaccessible", remedy="Choose another one.")
        found[name] = known.get(name, everywhere[0])
    if wanted.datastore is None:
        kept = known.get(otherwise.datastore or "")
        if kept is None or not kept.accessible:
            why = f"the original's, {otherwise.datastore}, isn't there" if otherwise.datastore else "none is named"
            raise NoSuchPlaceError(f"datastore for VM {wanted.name!r}", why=why, remedy="Name one by --datastore.")
        found[kept.name] = kept
    return found


def _require_room(stores: Mapping[str, Datastore], wanted: Wanted, main: str) -> None:
    needed: dict[str, int] = {}
    for key, size in wanted.allocated_bytes.items():
        name = wanted.disk_datastores.get(key, main)
        needed[name] = needed.get(name, 0) + size
    for name, size in needed.items():
        if size > stores[name].free_bytes:
            raise DatastoreFullError(
                f"datastore {name}",
                why=f"it has {stores[name].free_bytes} bytes free, the disks take {size}",
                remedy="Free some, choose another one, or restore to thin disks.",
            )


def _folder(inventory: Inventory, center: Place, wanted: str | None, otherwise: str | None) -> Place:
    below = [one for one in _vm_folders(inventory) if _datacenter(inventory, one.ref) == center]
    for text in (wanted, otherwise):
        if text is not None and (found := next((one for one in below if _matches(inventory, one, text)), None)):
            return found
    return next(one for one in below if one.parent == center.ref)


def _pool(inventory: Inventory, host: Host, wanted: str | None) -> Place:
    """The pool of that name which the host serves, or the root pool of its cluster."""
    below = [
        place
        for place in inventory.places.values()
        if place.kind is PlaceKind.POOL and any(one.ref == host.cluster for one in inventory.ancestors(place.ref))
    ]
    if wanted is not None:
        for place in below:
            if _is_pool(inventory, place, wanted):
                return place
    return next(place for place in below if place.parent == host.cluster)


def _kept_pool(inventory: Inventory, host: Host, name: str | None) -> str | None:
    return name if name and _pool(inventory, host, name).name == name else None


def _is_pool(inventory: Inventory, place: Place, name: str) -> bool:
    """Whether a pool is meant by `name`: its own, its path from the cluster on; or, of a root, its cluster's."""
    if place.kind is not PlaceKind.POOL:
        return False
    chain = list(inventory.ancestors(place.ref))
    cluster = next((one for one in chain if one.kind is PlaceKind.CLUSTER), None)
    pools = [one.name for one in reversed(chain) if one.kind is PlaceKind.POOL]
    if cluster is None:
        return False
    if len(pools) == 1:
        return name in {cluster.name, pools[0], f"{cluster.name}/{pools[0]}"}
    return name in {place.name, "/".join([cluster.name, *pools]), "/".join([cluster.name, *pools[1:]])}


def _pool_names(inventory: Inventory) -> Iterable[str]:
    return (one.name for one in inventory.places.values() if one.kind in {PlaceKind.POOL, PlaceKind.CLUSTER})


def _vm_folders(inventory: Inventory) -> list[Place]:
    """The folders that VMs can be in: a datacentre's `vm` and everything below it."""
    return [
        place
        for place in inventory.places.values()
        if place.kind is PlaceKind.FOLDER
        and any(_is_vm_root(inventory, one) for one in inventory.ancestors(place.ref))
    ]


def _is_vm_root(inventory: Inventory, place: Place) -> bool:
    above = inventory.places.get(place.parent or "")
    return place.name == "vm" and above is not None and above.kind is PlaceKind.DATACENTER


def _matches(inventory: Inventory, folder: Place, text: str) -> bool:
    full = _path(inventory, folder).split("/")
    center = _path(inventory, _datacenter(inventory, folder.ref)).split("/")
    inner = full[len(center) + 1 :]  # without the datacentre and its `vm`
    given = [part for part in text.split("/") if part]
    return given in ([*center, "vm", *inner], [*center, *inner], ["vm", *inner], inner)


def _require_free_name(inventory: Inventory, folder: Place, name: str) -> None:
    if any(vm.folder == folder.ref and vm.name == name for vm in inventory.vms.values()):
        raise NameTakenError(
            f"VM {name!r}",
            why=f"folder {_path(inventory, folder)} has a VM of that name",
            remedy="Give another --name or --folder, or say --overwrite to write over it.",
        )


def _kept(name: str | None, stores: Mapping[str, Datastore]) -> str | None:
    return name if name in stores else None


def _mounted(inventory: Inventory, host: Host) -> set[str]:
    return {
        store.ref
        for store in inventory.datastores.values()
        if any(mount.host == host.ref and mount.accessible and not mount.read_only for mount in store.mounts)
    }


def _datacenter(inventory: Inventory, ref: str | None) -> Place:
    return next(place for place in inventory.ancestors(ref) if place.kind is PlaceKind.DATACENTER)


def _path(inventory: Inventory, place: Place) -> str:
    """From below the root folder, e.g. `Europe/DC0/vm/Linux`."""
    names = [one.name for one in inventory.ancestors(place.ref)]
    above = list(inventory.ancestors(place.ref))
    if above and above[-1].parent is None and above[-1].kind is PlaceKind.FOLDER:
        names = names[:-1]
    return "/".join(reversed(names))


def _missing(what: str, name: str, known: Iterable[str]) -> NoSuchPlaceError:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names[:10])}." if names else ""
    return NoSuchPlaceError(f"{what} {name!r}", why=f"vCenter has no {what} of that name", remedy=remedy)
