"""VMs as a vCenter showed them, and what that makes of them as candidates. Sizes are in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ConfigDict

from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    Frozen,
    VcenterReference,
    VmIdentity,
    VsphereDisk,
    VsphereFile,
)
from scheduler.planning.candidates import Candidate, CandidateDisk


class ScannedDisk(Frozen):
    """One virtual disk."""

    key: str
    """Its place in the VM: `scsi0:0`."""
    device_key: int
    controller: str
    label: str
    size_bytes: int
    provisioning: str
    mode: str
    """E.g. `persistent` or `independent_persistent`."""
    datastore: str | None
    """As vCenter calls it; None: it has no file."""
    path: str | None
    """Its file in that datastore: `web/web.vmdk`."""
    datastore_type: str
    """As vSphere says: `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`, …"""
    uuid: str | None
    encrypted: bool
    obstacle: str | None
    """Why no snapshot covers it; None: one does."""


class ScannedVm(Frozen):
    """A VM or template. `ref` means something in its vCenter only."""

    model_config = ConfigDict(from_attributes=True, defer_build=True)

    ref: str
    """Its managed object id."""
    vm_id: str
    """What repositories file it under."""
    name: str
    datacenter: str | None
    """Its path: `Europe/DC0`."""
    folder: str
    """Datacentre and folders: `DC0/Linux/web`."""
    cluster: str | None
    pool: str | None
    """Below the cluster; "" if it is directly there, None for a template."""
    host: str | None
    datastores: tuple[str, ...]
    """As vCenter calls them."""
    tags: tuple[str, ...]
    """`Category/name`."""
    attributes: Mapping[str, str]
    """Custom attributes."""
    template: bool
    powered_on: bool
    tools_running: bool
    windows: bool
    """Whether its guest is, as it was told to be when it was made."""
    encrypted: bool
    tracks_changes: bool
    can_track_changes: bool
    snapshots: int
    """How many it had, whoever made them."""
    configuration_path: str | None
    """Its VMX: `[datastore] folder/name.vmx`."""
    disks: tuple[ScannedDisk, ...]
    problem: str | None
    """Why it can't be protected as it stands."""


@dataclass(frozen=True)
class Surroundings:
    """What is declared of the vCenter that a VM was found in."""

    vcenter: VcenterReference
    datastores: Mapping[str, str]
    """The declared name of a datastore by what vCenter calls it, perhaps with the path of its datacentre before:
    `DC0/datastore1`."""

    def declared(self, datastore: str | None, datacenter: str | None) -> str | None:
        """The name that this datastore is declared by, if it is."""
        within = self.datastores.get(f"{datacenter}/{datastore}")
        return within if within is not None else self.datastores.get(datastore or "")


def candidate_of(vm: ScannedVm, around: Surroundings) -> Candidate:
    """The VM with the addresses of its disks as they are now, in no snapshot yet."""
    called = [around.declared(name, vm.datacenter) for name in vm.datastores]
    configuration: tuple[DiskAddress, ...] = ()
    if vm.configuration_path is not None and vm.datacenter is not None:
        file = VsphereFile(vcenter=around.vcenter, datacenter=vm.datacenter, path=vm.configuration_path)
        configuration = (DiskAddress(vsphere_file=file),)
    return Candidate(
        identity=VmIdentity(vm_id=vm.vm_id, name=vm.name),
        disks=tuple(_disk(vm, disk, around) for disk in vm.disks),
        configuration=configuration,
        problem=vm.problem,
        vcenter=around.vcenter.name,
        ref=vm.ref,
        template=vm.template,
        folder=vm.folder,
        pool=vm.pool,
        cluster=vm.cluster,
        datastores=tuple(dict.fromkeys(name for name in (*vm.datastores, *called) if name is not None)),
        tags=vm.tags,
        attributes=vm.attributes,
    )


def _disk(vm: ScannedVm, disk: ScannedDisk, around: Surroundings) -> CandidateDisk:
    address = DiskAddress(
        datastore=around.declared(disk.datastore, vm.datacenter),
        path=disk.path,
        vsphere=VsphereDisk(
            vcenter=around.vcenter,
            vm=vm.ref,
            snapshot=None,
            key=disk.device_key,
            path=f"[{disk.datastore}] {disk.path}" if disk.path is not None else "",
            uuid=disk.uuid,
            controller=disk.controller,
            datastore_type=disk.datastore_type,
            template=vm.template,
            earlier_snapshots=vm.snapshots > 0,
        ),
    )
    return CandidateDisk(
        identity=DiskIdentity(key=disk.key, address=address, size_bytes=disk.size_bytes),
        obstacle=disk.obstacle,
        independent=disk.mode.startswith("independent"),
        encrypted=disk.encrypted,
    )
