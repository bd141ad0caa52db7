"""What tasks are about: VMs, disks and repositories, and where a proxy finds them.

All sizes are in bytes. Credentials are named, never contained.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from proxy_worker.contract.names import AUTOMATIC, NAME_PATTERN, TransportMode

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
DiskKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$")]
"""A disk's place in its VM, e.g. `scsi0:0`."""


class Frozen(BaseModel):
    """Immutable, and strict about keys: an unknown one is an error, not a typo that is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class VmIdentity(Frozen):
    """A VM: the id that the repository files it under, and the name people know it by."""

    vm_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """vSphere's instanceUuid, a VMX's uuid.bios, or a hash of the name; lower case."""
    name: Annotated[str, Field(min_length=1, max_length=255)]

    @classmethod
    def of_name(cls, name: str) -> VmIdentity:
        """The identity of a VM that brings no id of its own: a hash of its name stands in."""
        return cls(vm_id=f"name-{hashlib.sha256(name.encode()).hexdigest()[:32]}", name=name)


class VcenterReference(Frozen):
    """A vCenter or ESXi host, as a proxy finds it and logs in."""

    name: Name
    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 443
    user: Annotated[str, Field(min_length=1, max_length=255)]
    credential: Name
    """Names the secret `<credential>.password`."""
    thumbprint: str | None = None
    """SHA-1 or SHA-256 of the certificate that it is pinned by; None: authorities verify it."""
    authorities: str | None = None
    """Those that verify its certificate, in PEM; None: the proxy's own, or the system's."""


class VsphereDisk(Frozen):
    """A VM's disk in vCenter's words. Ids such as `vm-12` and `snapshot-34` mean something in that vCenter only."""

    vcenter: VcenterReference
    vm: str
    snapshot: str | None = None
    """The snapshot that froze it; None: the disk itself, to be written by a restore."""
    key: int
    """The device key."""
    path: str
    """`[datastore] folder/disk.vmdk`: the file that the snapshot froze."""
    uuid: str | None = None
    controller: str
    """`scsi`, `sata`, `ide` or `nvme`."""
    datastore_type: str
    """As vSphere says: `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`, …"""
    template: bool = False
    earlier_snapshots: bool = False
    """Whether the VM has snapshots besides ours, so that the disk is a chain of files."""
    quiesced_windows: bool = False


class VsphereFile(Frozen):
    """A file of a VM's configuration, which vCenter serves over HTTPS."""

    vcenter: VcenterReference
    datacenter: str
    """The path of the datacentre, e.g. `Europe/DC0`."""
    path: str
    """`[datastore] folder/name.vmx`."""


class StorageSnapshotMark(Frozen):
    """Which storage snapshot: the installation that asked for it, and its entry in that installation's journal."""

    installation: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]
    journal: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]


class DiskAddress(Frozen):
    """Where a disk lies. A proxy translates it to its own paths, URIs and commands."""

    datastore: Name | None = None
    path: str | None = None
    """Within the datastore, e.g. `web01/web01.vmdk`; relative, without `..`."""
    nbd_uri: str | None = None
    """For a disk that is offered by an NBD server: the `nbd`, `nbds`, `nbd+unix` … URI."""
    vsphere: VsphereDisk | None = None
    """For a disk of a vCenter; `datastore` is None then where that vSphere datastore isn't declared."""
    vsphere_file: VsphereFile | None = None
    """For a configuration file of a vCenter's VM."""
    storage_snapshot: StorageSnapshotMark | None = None
    """For a disk that is frozen in this snapshot of its datastore, and in nothing else any more."""


class DiskIdentity(Frozen):
    """One virtual disk of a VM."""

    key: DiskKey
    address: DiskAddress
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    """As the inventory knows it; what the transport finds decides."""


class InventoryVm(Frozen):
    """A VM as an inventory shows it."""

    identity: VmIdentity
    disks: tuple[DiskIdentity, ...]
    configuration: tuple[DiskAddress, ...] = ()
    """The files of its configuration that belong in a restore point: VMX, NVRAM."""
    problem: str | None = None
    """Why this VM can't be protected as it stands, e.g. its VMX is truncated."""
    machine: str | None = None
    """What it is made of, its disks apart: what proxies make a replica of it from. Only where it was asked for."""


class RepositoryReference(Frozen):
    """A repository as a proxy finds and opens it."""

    name: Name
    location: str
    """A folder on the proxies that reach it."""
    credential: Name | None = None
    """Names the secret `<credential>.key` (write or read key) or `<credential>.passphrase`; None: not encrypted."""
    preferred_networks: tuple[str, ...] = ()
    """Of a gateway: networks over which it is reached if its name has an address there, best first."""


class Extent(Frozen):
    """A range of a disk."""

    offset: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(gt=0)]


class TransportPreference(Frozen):
    """The mode the scheduler planned for, and whether reading may fail over to network mode."""

    mode: TransportMode | Literal["automatic"] = AUTOMATIC
    failover_to_network: bool = True
