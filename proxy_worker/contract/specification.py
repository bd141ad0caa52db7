"""Task specifications: what the scheduler signs, keeps in the ledger, and a proxy verifies before it acts.

A specification names credentials and never contains one. All sizes are in bytes, all times are Unix
seconds (UTC).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy_worker.contract.copying import CopyOf, CopyPlan, DiskCopy
from proxy_worker.contract.disks import DiskBackup, DiskRestore
from proxy_worker.contract.names import DiskFormat, TaskKind
from proxy_worker.contract.replication import (
    DiskReceive,
    DiskReplicate,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
)
from proxy_worker.contract.subjects import (
    DiskIdentity,
    DiskKey,
    Frozen,
    Name,
    RepositoryReference,
    StorageSnapshotMark,
    VcenterReference,
    VmIdentity,
)
from proxy_worker.contract.using import PointBoot, PointRelease, PointServe


class VmPlace(Frozen):
    """Where a VM is made, in its vCenter's ids and names."""

    datacenter: str
    """Its path, e.g. `Europe/DC0`."""
    folder: str
    """Managed object ids of the VM folder, the resource pool and the host; without a host vCenter chooses."""
    pool: str
    host: str | None = None
    datastore: str
    """The name of the datastore for its configuration and for disks that aren't put elsewhere."""


class VmCreate(Frozen):
    """Make a VM by the configuration that a restore point holds, with empty disks of the point's sizes."""

    kind: Literal[TaskKind.VM_CREATE] = TaskKind.VM_CREATE
    repository: RepositoryReference
    vm: VmIdentity
    run: Name
    vcenter: VcenterReference
    mark: Annotated[str, Field(min_length=1, max_length=160)]
    """`<installation>/<restore>`: what the VM carries until it is whole, and is found by again."""
    name: Annotated[str, Field(min_length=1, max_length=80)]
    instance_uuid: str
    """What vCenter is to know it by; the original's own where that no longer exists."""
    same_machine: bool
    """Whether it takes the original's place, with its BIOS uuid and MAC addresses, or is another machine."""
    place: VmPlace
    disk_datastores: dict[DiskKey, str] = Field(default_factory=dict)
    """Names of datastores for disks that don't go to the place's."""
    disk_files: dict[DiskKey, str] = Field(default_factory=dict, exclude_if=lambda files: not files)
    """Disks that there are already, as `[datastore] folder/name.vmdk`; the others are made. Left out where it is
    empty: a proxy that is too old to know it has to refuse the task, and must not make empty ones."""
    networks: dict[str, str] = Field(default_factory=dict)
    """Names of networks: the configuration's to the target's; others keep their names."""
    disk_format: DiskFormat = DiskFormat.THIN
    declared: dict[str, Name] = Field(default_factory=dict)
    """Declared datastores of this vCenter: what it calls each -> what the fleet file does."""


class InventoryScan(Frozen):
    """List the VMs of a datastore that is a folder, with their disks."""

    kind: Literal[TaskKind.INVENTORY_SCAN] = TaskKind.INVENTORY_SCAN
    datastore: Name
    machines: bool = False
    """Whether to tell what each VM is made of, too."""


class FinishedDisk(Frozen):
    """One disk of a VM run that has been stored, as its task reported it."""

    disk: DiskIdentity
    fence: int
    sealed_result: str
    """Opaque to the scheduler; sealed under the repository's metadata key and bound to run and disk."""


class RepositoryCommit(Frozen):
    """Make a VM run's disks a restore point, all or nothing."""

    kind: Literal[TaskKind.REPOSITORY_COMMIT] = TaskKind.REPOSITORY_COMMIT
    repository: RepositoryReference
    run: Name
    job: str
    vm: VmIdentity
    disks: Annotated[tuple[FinishedDisk, ...], Field(min_length=1)]
    started_at: float
    copy_of: CopyOf | None = None
    """Whose place in time it takes; None: it is no copy."""


class RepositoryAbandon(Frozen):
    """Put a tombstone in the place of a restore point that will not be, so that its writers may be forgotten."""

    kind: Literal[TaskKind.REPOSITORY_ABANDON] = TaskKind.REPOSITORY_ABANDON
    repository: RepositoryReference
    run: Name
    vm: VmIdentity
    reason: str


class RepositoryList(Frozen):
    """List the restore points of a repository."""

    kind: Literal[TaskKind.REPOSITORY_LIST] = TaskKind.REPOSITORY_LIST
    repository: RepositoryReference


class RepositoryCheck(Frozen):
    """Read everything a repository holds and name what is damaged."""

    kind: Literal[TaskKind.REPOSITORY_CHECK] = TaskKind.REPOSITORY_CHECK
    repository: RepositoryReference
    scrub_only: bool = False
    """Compare stored checksums only, which needs no key."""


class RepositoryCollect(Frozen):
    """Free what no restore point needs; done again, it goes on where it was stopped."""

    kind: Literal[TaskKind.REPOSITORY_COLLECT] = TaskKind.REPOSITORY_COLLECT
    repository: RepositoryReference
    dry_run: bool = False
    bytes_per_s: Annotated[int, Field(gt=0)] | None = None
    """A limit for what is read to be moved; None: none."""


class RepositoryProve(Frozen):
    """Read what was read longest ago, mend what is damaged, restore samples; done again, it goes on."""

    kind: Literal[TaskKind.REPOSITORY_PROVE] = TaskKind.REPOSITORY_PROVE
    repository: RepositoryReference
    linked: tuple[RepositoryReference, ...] = ()
    """Repositories of the same VMs, to fetch lost blocks from, as far as the proxy reaches and may read them."""
    period_s: Annotated[float, Field(gt=0)]
    """Everything is to be read at least once in this time."""
    most_s: Annotated[float, Field(gt=0)] | None = None
    """How long it may read at once; None: until it has done its share."""
    bytes_per_s: Annotated[int, Field(gt=0)] | None = None
    samples: bool = True
    """Whether samples of restore points are restored, which takes a read key."""


class PointDelete(Frozen):
    """Remove one restore point; done again, it changes nothing."""

    kind: Literal[TaskKind.POINT_DELETE] = TaskKind.POINT_DELETE
    repository: RepositoryReference
    vm: VmIdentity
    run: Name


class StorageSnapshotCreate(Frozen):
    """Freeze disks by a snapshot of the storage they lie on; done again, it finds what it made before."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_CREATE] = TaskKind.STORAGE_SNAPSHOT_CREATE
    datastore: Name
    mark: StorageSnapshotMark
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """The disks within the datastore, e.g. `web01/web01.vmdk`, each with all that it consists of."""


class StorageSnapshotRemove(Frozen):
    """Remove a storage snapshot; one that is gone is removed."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_REMOVE] = TaskKind.STORAGE_SNAPSHOT_REMOVE
    datastore: Name
    mark: StorageSnapshotMark


class StorageSnapshotList(Frozen):
    """List an installation's storage snapshots of a datastore, for what a crash has left."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_LIST] = TaskKind.STORAGE_SNAPSHOT_LIST
    datastore: Name
    installation: str


TaskBody = Annotated[
    DiskBackup
    | DiskRestore
    | DiskCopy
    | CopyPlan
    | VmCreate
    | InventoryScan
    | RepositoryCommit
    | RepositoryAbandon
    | RepositoryList
    | RepositoryCheck
    | RepositoryCollect
    | RepositoryProve
    | PointDelete
    | PointBoot
    | PointServe
    | PointRelease
    | StorageSnapshotCreate
    | StorageSnapshotRemove
    | StorageSnapshotList
    | DiskReceive
    | DiskReplicate
    | ReplicaOpen
    | ReplicaPoint
    | ReplicaRemovePoint
    | ReplicaRevert
    | ReplicaMark,
    Field(discriminator="kind"),
]


class TaskSpecification(Frozen):
    """One dispatch of one task: what the scheduler signs."""

    epoch: int
    task_id: str
    dispatch_number: int
    audience: str
    """The lane it was published to."""
    expires_at: float
    """After this, a proxy that has not claimed it yet refuses it."""
    contract_version: int | None = None
    """The version of the contract that it is written in; None: the first, which didn't say so."""
    body: TaskBody
