"""What a vCenter or ESXi host looked like at one moment.

Objects refer to each other by managed object id (`ref`), which means something in that vCenter only.
Sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy_worker.vsphere.devices import VirtualDisk


class PlaceKind(StrEnum):
    """What can contain VMs."""

    DATACENTER = "datacenter"
    FOLDER = "folder"
    CLUSTER = "cluster"
    """A cluster, or the compute resource of a host that is in none."""
    POOL = "resource pool"
    """A resource pool or vApp."""


@dataclass(frozen=True, slots=True)
class Place:
    """A datacentre, folder, cluster or resource pool."""

    ref: str
    kind: PlaceKind
    name: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class Host:
    """An ESXi host."""

    ref: str
    name: str
    cluster: str | None
    connected: bool
    in_maintenance: bool

    @property
    def obstacle(self) -> str | None:
        """Why its VMs can't be snapshotted, or None."""
        if not self.connected:
            return f"host {self.name} is not connected"
        return f"host {self.name} is in maintenance" if self.in_maintenance else None


@dataclass(frozen=True, slots=True)
class NfsExport:
    """What an NFS datastore is mounted from."""

    servers: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class VmfsVolume:
    """What a VMFS datastore lies on: its LUNs by canonical name, e.g. `naa.6005…`."""

    uuid: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mount:
    """A host that reaches a datastore."""

    host: str
    path: str
    read_only: bool
    accessible: bool


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore, with what it lies on and who mounts it."""

    ref: str
    name: str
    type: str
    """As vSphere says: `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`, …"""
    backing: NfsExport | VmfsVolume | None
    mounts: tuple[Mount, ...]
    accessible: bool
    capacity_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotNode:
    """One snapshot in a VM's tree."""

    ref: str
    name: str
    description: str
    parent: str | None
    created_at: float
    quiesced: bool


@dataclass(frozen=True, slots=True)
class Vm:
    """A virtual machine or template."""

    ref: str
    name: str
    instance_uuid: str | None
    """What it is known by across renames and moves; vCenter keeps it unique."""
    template: bool
    powered_on: bool
    connection: str
    """`connected`, or `inaccessible`, `orphaned`, `invalid`, `disconnected`."""
    host: str | None
    folder: str | None
    pool: str | None
    datastores: tuple[str, ...]
    configuration_path: str | None
    """The VMX: `[datastore] folder/name.vmx`."""
    disks: tuple[VirtualDisk, ...]
    tracks_changes: bool
    can_track_changes: bool
    tools_running: bool
    encrypted: bool
    shows_disk_uuids: bool
    """disk.EnableUUID: whether the guest sees disks' uuids."""
    attributes: Mapping[str, str]
    """Custom attributes by name."""
    snapshots: tuple[SnapshotNode, ...] = ()
    guest_id: str = ""
    """What it was told that its guest is, e.g. `windows2019srv_64Guest`."""
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything, by managed object id."""

    api: str
    """`VirtualCenter` or `HostAgent`."""
    instance_uuid: str | None
    """The vCenter's own; None for a host."""
    places: Mapping[str, Place]
    hosts: Mapping[str, Host]
    datastores: Mapping[str, Datastore]
    vms: Mapping[str, Vm]

    def ancestors(self, ref: str | None) -> Iterator[Place]:
        """The place `ref` and those above it, from inside out."""
        while ref is not None and (place := self.places.get(ref)) is not None:
            yield place
            ref = place.parent
