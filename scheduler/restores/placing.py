"""The step `restore.place`: what was asked for by name, looked up at the vCenter. It changes nothing there."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field
from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.specification import VmPlace
from proxy_worker.contract.subjects import DiskKey, Frozen
from proxy_worker.vsphere.faults import DatastoreFullError, MissingPrivilegeError
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.lookup import find_vm
from proxy_worker.vsphere.model import Inventory
from proxy_worker.vsphere.networks import read_networks
from proxy_worker.vsphere.placing import NoSuchPlaceError, Spot, Wanted, find_spot
from proxy_worker.vsphere.privileges import Purpose, missing_privileges
from proxy_worker.vsphere.restored import find, mark_of
from proxy_worker.vsphere.rewriting import require_disk, require_idle
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark
from scheduler.state.restoring import OriginalPlace, RestoreWishes, VmRestoreKind
from scheduler.vcenters.steps import Access, StepKind


class OriginalExistsError(ConflictError):
    """The VM that is to be made in its original's place still exists."""


class PlaceRequest(Frozen):
    """What is restored, and to where."""

    restore: str
    kind: VmRestoreKind
    target_name: str
    target_ref: str | None = None
    """An existing VM's managed object id, where it was last seen."""
    instance_uuid: str
    wishes: RestoreWishes
    sizes: dict[DiskKey, int]
    original: OriginalPlace = Field(default_factory=OriginalPlace)


class Placed(Frozen):
    """Where it goes."""

    place: VmPlace | None = None
    vm_ref: str | None = None
    tracks_changes: bool = False
    datastores: dict[DiskKey, str] = Field(default_factory=dict)
    """Where each disk is, or will be, as vCenter calls it."""


def place(access: Access, request: PlaceRequest) -> Placed:
    """Look everything up; raises the named error of what isn't there, or isn't allowed."""
    wishes = request.wishes
    if request.kind is VmRestoreKind.NEW:
        made = _new_place(access, request)
        chosen = {key: wishes.disk_datastores.get(key, made.datastore) for key in request.sizes}
        return Placed(place=made, datastores=chosen)
    session = access.session
    vm = find_vm(session, request.target_ref or "", request.instance_uuid, request.target_name)
    require_idle(vm, Mark(access.installation, request.restore), may_be_on=wishes.power_off)
    home = wishes.datastore or split_path(vm.configuration_path or "")[0]
    datastores = dict.fromkeys(request.sizes, home)
    if request.kind is VmRestoreKind.OVERWRITE:
        for key, size in request.sizes.items():
            datastores[key] = split_path(require_disk(vm, key, size).path or "")[0]
    _require_privileges(session, vim.VirtualMachine(vm.ref, session.stub))
    return Placed(vm_ref=vm.ref, tracks_changes=vm.tracks_changes, datastores=datastores)


def _new_place(access: Access, request: PlaceRequest) -> VmPlace:
    session, wishes = access.session, request.wishes
    there = find(session, request.instance_uuid)
    if there is not None and mark_of(session, there) != f"{access.installation}/{request.restore}":
        vm = read_vm(session, there)
        raise OriginalExistsError(
            f"VM {vm.name}",
            why="it still exists, so that nothing can be made in its place",
            remedy="Say --overwrite to write over it, or restore it under another --name.",
        )
    inventory = read_inventory(session)
    thin = wishes.disk_format is DiskFormat.THIN
    wanted = Wanted(
        name=request.target_name,
        folder=wishes.folder,
        pool=wishes.pool,
        host=wishes.host,
        datastore=wishes.datastore,
        disk_datastores=wishes.disk_datastores,
        allocated_bytes={} if thin else request.sizes,
    )
    original = request.original
    otherwise = Wanted(request.target_name, original.folder, original.pool, original.host, original.datastore)
    spot = find_spot(inventory, wanted, otherwise)
    _require_networks(session, wishes)
    _require_room_for_thin(inventory, spot)
    _require_privileges(session, vim.Folder(spot.folder, session.stub))
    return VmPlace(
        datacenter=spot.datacenter, folder=spot.folder, pool=spot.pool, host=spot.host, datastore=spot.datastore
    )


def _require_networks(session: Session, wishes: RestoreWishes) -> None:
    if not wishes.networks:
        return
    names = sorted({network.name for network in read_networks(session)})
    for wanted in wishes.networks.values():
        if wanted not in names:
            raise NoSuchPlaceError(
                f"network {wanted!r}",
                why="vCenter has no network of that name",
                remedy=f"There are: {', '.join(names[:10])}.",
            )


def _require_room_for_thin(inventory: Inventory, spot: Spot) -> None:
    store = next(one for one in inventory.datastores.values() if one.name == spot.datastore)
    if store.capacity_bytes and not store.free_bytes:
        raise DatastoreFullError(f"datastore {store.name}", why="it is full", remedy="Choose another one.")


def _require_privileges(session: Session, on: Any) -> None:
    """What concerns VMs, asked of the VM or its folder: a role may be granted there only."""
    missing = [
        one
        for one in missing_privileges(session, (Purpose.RESTORE,), [on])
        if one.privilege.id.startswith("VirtualMachine.")
    ]
    if missing:
        names = ", ".join(one.privilege.id for one in missing)
        raise MissingPrivilegeError("restoring to this vCenter", privilege=names, on=missing[0].on)


PLACE: Final = StepKind("restore.place", PlaceRequest, place)
