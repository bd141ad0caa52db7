"""Reading an inventory: two or three calls and one per page, however many VMs there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.vsphere.devices import disks
from proxy_worker.vsphere.model import (
    Datastore,
    Host,
    Inventory,
    Mount,
    NfsExport,
    Place,
    PlaceKind,
    SnapshotNode,
    Vm,
    VmfsVolume,
)
from proxy_worker.vsphere.properties import PAGE, ObjectProperties, read, reference, retrieve
from proxy_worker.vsphere.session import Session

_PLACES: Final[Mapping[str, PlaceKind]] = {
    "Datacenter": PlaceKind.DATACENTER,
    "Folder": PlaceKind.FOLDER,
    "StoragePod": PlaceKind.FOLDER,
    "ComputeResource": PlaceKind.CLUSTER,
    "ClusterComputeResource": PlaceKind.CLUSTER,
    "ResourcePool": PlaceKind.POOL,
    "VirtualApp": PlaceKind.POOL,
}
_PATHS: Final[Mapping[type[vim.ManagedEntity], tuple[str, ...]]] = {
    vim.Datacenter: ("name", "parent"),
    vim.Folder: ("name", "parent"),
    vim.ComputeResource: ("name", "parent"),
    vim.ResourcePool: ("name", "parent"),
    vim.HostSystem: ("name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode"),
    vim.Datastore: ("name", "summary", "info", "host"),
    vim.VirtualMachine: (
        "name",
        "parent",
        "parentVApp",
        "resourcePool",
        "datastore",
        "snapshot.rootSnapshotList",
        "customValue",
        "capability.changeTrackingSupported",
        "config.instanceUuid",
        "config.template",
        "config.guestId",
        "config.changeTrackingEnabled",
        "config.keyId",
        "config.flags.diskUuidEnabled",
        "config.files.vmPathName",
        "config.hardware.device",
        "runtime.host",
        "runtime.powerState",
        "runtime.connectionState",
        "guest.toolsRunningStatus",
    ),
}


def read_inventory(session: Session, *, page: int = PAGE) -> Inventory:
    """All that the account sees of this vCenter or host.

    Raises the named errors of `session` and `faults`. Starts anew when the session expires between two pages.
    """
    what = f"reading the inventory of vCenter {session.endpoint.name}"
    return session.call(what, lambda: _read(session, page), repeatable=True)


def _read(session: Session, page: int) -> Inventory:
    about = session.content.about
    fields = _custom_fields(session)
    places, hosts, datastores, vms = {}, {}, {}, {}
    for found in retrieve(session, _PATHS, page=page):
        if found.kind in _PLACES:
            kind = _PLACES[found.kind]
            places[found.ref] = Place(found.ref, kind, _name(found), reference(found["parent"]))
        elif found.kind == "HostSystem":
            hosts[found.ref] = _host(found)
        elif found.kind == "Datastore":
            datastores[found.ref] = _datastore(found)
        elif found.kind == "VirtualMachine":
            vms[found.ref] = _vm(found, fields)
    return Inventory(about.apiType, about.instanceUuid, places, hosts, datastores, vms)


def read_vm(session: Session, ref: str) -> Vm:
    """One VM as it is now, in a call or two; raises `VsphereObjectGoneError` if it no longer exists."""
    paths = _PATHS[vim.VirtualMachine]

    def ask() -> Vm:
        return _vm(read(session, [vim.VirtualMachine(ref, session.stub)], paths)[0], _custom_fields(session))

    return session.call(f"reading VM {ref} of vCenter {session.endpoint.name}", ask, repeatable=True)


def _custom_fields(session: Session) -> dict[int, str]:
    """Custom attributes' names by key. An ESXi host has none."""
    fields = session.content.customFieldsManager
    return {} if fields is None else {field.key: field.name for field in fields.field or ()}


def _name(found: ObjectProperties) -> str:
    return unescaped(found["name"] or found.ref)


def unescaped(name: str) -> str:
    """A name as people write it: vSphere stores `/`, `\\` and `%` as `%2f`, `%5c` and `%25`."""
    return name.replace("%2f", "/").replace("%5c", "\\").replace("%25", "%")


def _host(found: ObjectProperties) -> Host:
    return Host(
        ref=found.ref,
        name=_name(found),
        cluster=reference(found["parent"]),
        connected=found["runtime.connectionState"] == "connected",
        in_maintenance=bool(found["runtime.inMaintenanceMode"]),
    )


def _datastore(found: ObjectProperties) -> Datastore:
    summary = found["summary"]
    return Datastore(
        ref=found.ref,
        name=_name(found),
        type=summary.type if summary else "unknown",
        backing=_backing(found["info"]),
        mounts=tuple(
            Mount(
                host=mount.key._moId,  # pyvmomi offers no other way
                path=mount.mountInfo.path or "",
                read_only=mount.mountInfo.accessMode == "readOnly",
                accessible=bool(mount.mountInfo.accessible),
            )
            for mount in found["host"] or ()
        ),
        accessible=bool(summary and summary.accessible),
        capacity_bytes=(summary.capacity or 0) if summary else 0,
        free_bytes=(summary.freeSpace or 0) if summary else 0,
    )


def _backing(info: Any) -> NfsExport | VmfsVolume | None:
    if isinstance(info, vim.host.NasDatastoreInfo) and info.nas is not None:
        return NfsExport(tuple(info.nas.remoteHostNames or [info.nas.remoteHost]), info.nas.remotePath)
    if isinstance(info, vim.host.VmfsDatastoreInfo) and info.vmfs is not None:
        return VmfsVolume(info.vmfs.uuid, tuple(extent.diskName for extent in info.vmfs.extent or ()))
    return None


def _vm(found: ObjectProperties, fields: Mapping[int, str]) -> Vm:
    return Vm(
        ref=found.ref,
        name=_name(found),
        instance_uuid=found["config.instanceUuid"] or None,
        template=bool(found["config.template"]),
        powered_on=found["runtime.powerState"] == "poweredOn",
        connection=str(found["runtime.connectionState"] or "unknown"),
        host=reference(found["runtime.host"]),
        folder=reference(found["parent"]) or reference(found["parentVApp"]),
        pool=reference(found["resourcePool"]),
        datastores=tuple(store._moId for store in found["datastore"] or ()),
        configuration_path=found["config.files.vmPathName"] or None,
        disks=disks(found["config.hardware.device"] or ()),
        tracks_changes=bool(found["config.changeTrackingEnabled"]),
        can_track_changes=found["capability.changeTrackingSupported"] is not False,
        tools_running=found["guest.toolsRunningStatus"] == "guestToolsRunning",
        encrypted=found["config.keyId"] is not None,
        shows_disk_uuids=bool(found["config.flags.diskUuidEnabled"]),
        attributes={fields[value.key]: value.value for value in found["customValue"] or () if value.key in fields},
        snapshots=tuple(snapshot_nodes(found["snapshot.rootSnapshotList"] or ())),
        guest_id=found["config.guestId"] or "",
        unreadable=found.unreadable,
    )


def snapshot_nodes(trees: Iterable[Any], parent: str | None = None) -> Iterator[SnapshotNode]:
    """A VM's snapshots, parents before children."""
    for tree in trees:
        ref = tree.snapshot._moId
        yield SnapshotNode(
            ref=ref,
            name=unescaped(tree.name),
            description=tree.description or "",
            parent=parent,
            created_at=tree.createTime.timestamp(),
            quiesced=bool(tree.quiesced),
        )
        yield from snapshot_nodes(tree.childSnapshotList or (), ref)
