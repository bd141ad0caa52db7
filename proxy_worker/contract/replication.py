"""What the tasks of a replication ask for: a disk sent from one proxy to another, and the life of the replica.

A replica is a VM at the target, in a folder of a datastore. Each disk of a run takes two tasks of one session: the
target's proxy receives, then the source's sends. All sizes are in bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import CompressionLevel, TaskKind
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    DiskKey,
    Extent,
    Frozen,
    Name,
    RepositoryReference,
    TransportPreference,
    VcenterReference,
    VmIdentity,
)

DEFAULT_STREAMS = 5
Streams = Annotated[int, Field(ge=1, le=100)]
"""How many pieces of one disk are on their way at a time, each over a connection of its own."""
Folder = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f.][^/\x00-\x1f]{0,254}$")]
"""A folder that lies directly in a datastore, as VMs' folders do."""


class ReplicaCondition(StrEnum):
    """What a replica is at the moment; noted beside it, so that no run overwrites what is in use."""

    STANDBY = "standby"
    """Runs write it."""
    FAILED_OVER = "failed_over"
    """It has taken the original's place: runs are refused."""
    PERMANENT = "permanent"
    """It is a VM of its own, for good."""


class VsphereHome(Frozen):
    """The vCenter that has a replica, or its original, and what the VM is known by there."""

    vcenter: VcenterReference
    datastore: str
    """As the vCenter calls it."""
    uuid: str
    """The VM's instance uuid."""
    mark: Annotated[str, Field(min_length=1)]
    """What the replica carries, and all snapshots that are made of it, or of its original: whatever else there is
    without just this is another's, and isn't touched."""
    original: bool = False
    """Whether the VM is the original, which a failback writes: it carries nothing, and nothing is noted in it."""


class ReplicaPlace(Frozen):
    """Where a replica lies."""

    datastore: Name
    folder: Folder
    """In a vCenter's datastore: what the VM is called."""
    vsphere: VsphereHome | None = None
    """None: the datastore is a folder on its proxies."""


class ReplicaMachine(Frozen):
    """What a replica in a vCenter is made of, where it isn't there yet."""

    hardware: str
    """As `InventoryVm.machine` has it."""
    networks: dict[str, str] = Field(default_factory=dict)
    """Names of networks: the original's to the target's; others keep their names."""
    disks: Annotated[tuple[DiskIdentity, ...], Field(min_length=1)]
    """With the sizes of the original's."""


class ReplicaSeed(Frozen):
    """A disk of a restore point that a new replica begins with, so that only what differs has to be sent."""

    repository: RepositoryReference
    vm: VmIdentity
    run: Name
    disk_key: DiskKey


class ReplicaTarget(Frozen):
    """A disk of a replica, as the target's proxy writes it."""

    place: ReplicaPlace
    disk: DiskIdentity
    """Its address is a path in the replica's datastore. What isn't there is made, as large as the source's disk: a
    flat VMDK, or a raw image where the name doesn't end in `.vmdk`. What is there is compared first."""
    seed: ReplicaSeed | None = None
    original: str | None = None
    """The id of the VM that the folder has to be noted for; None: whoever it is for."""
    back: bool = False
    """Whether it is a disk of the original, which a failback writes."""


class DiskReceive(Frozen):
    """Make a replica's disk ready, listen for its source, and write what that sends, until it is whole."""

    kind: Literal[TaskKind.DISK_RECEIVE] = TaskKind.DISK_RECEIVE
    job: str
    run: Name
    session: Name
    """The same in both tasks, and new for each pair of them."""
    source: Name
    """The source's proxy, as its certificate names it: nobody else is let in."""
    target: ReplicaTarget
    streams: Streams = DEFAULT_STREAMS


class DiskReplicate(Frozen):
    """Read a disk, and bring its replica up to date with it."""

    kind: Literal[TaskKind.DISK_REPLICATE] = TaskKind.DISK_REPLICATE
    job: str
    run: Name
    """The VM run's id, which the replica's restore point gets."""
    session: Name
    vm: VmIdentity
    disk: DiskIdentity
    source: ReplicaPlace | None = None
    """The replica in a vCenter that the disk is one of, by its key: off, and read as it is. None: the disk's
    address says where it lies."""
    transport: TransportPreference
    receiver: Receiver | None = None
    target: ReplicaTarget | None = None
    """Takes the place of `receiver` where the source's proxy writes the replica, too: nothing crosses a network."""
    preferred_networks: tuple[str, ...] = ()
    """Networks over which the receiver is reached if its host has an address there, best first."""
    level: CompressionLevel = CompressionLevel.OPTIMAL
    streams: Streams = DEFAULT_STREAMS
    changed_areas: tuple[Extent, ...] | None = None
    """Relative to the run `parent`; counted on only where the replica is known to be as that run left it."""
    parent: Name | None = None
    areas_in_use: tuple[Extent, ...] | None = None
    """All that may hold something other than zeros; None when nobody can tell."""
    full_read_reason: str | None = None
    """Why it isn't known which areas changed, for the report."""
    configuration: tuple[DiskAddress, ...] = ()
    """Files of the VM's configuration that go with this disk; one disk of a VM run has them."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if (self.receiver is None) == (self.target is None):
            raise ValueError("give receiver or target")
        return self


class ReplicaOpen(Frozen):
    """Find out whether a replica can be written, before anything is; make its folder unless it is there."""

    kind: Literal[TaskKind.REPLICA_OPEN] = TaskKind.REPLICA_OPEN
    replica: ReplicaPlace
    vm: VmIdentity
    """The original."""
    mapped: bool = False
    """Whether the folder is that of an existing VM, and so has to be there."""
    needed_bytes: Annotated[int, Field(ge=0)] = 0
    """What the run will write at least, all disks together; refused where the datastore hasn't so much left."""
    expected: bool = False
    """Whether runs have written it before: it isn't made then, but has to be there."""
    disks: tuple[DiskIdentity, ...] = ()
    """What a failback will write: the VMX in the folder has to name just these files; in a vCenter, the original
    has to have these disks."""
    machine: ReplicaMachine | None = None
    """Of a replica in a vCenter."""


class ReplicaPoint(Frozen):
    """Keep a replica's disks as they are now; done again, it changes nothing."""

    kind: Literal[TaskKind.REPLICA_POINT] = TaskKind.REPLICA_POINT
    replica: ReplicaPlace
    vm: VmIdentity
    run: Name
    """What the point is called."""
    disks: Annotated[tuple[DiskIdentity, ...], Field(min_length=1)]
    """The replica's."""
    name: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    """What the replica is to be called; None: its VMX stays as it is."""
    uuid: str | None = None
    """Its own `uuid.bios`, as 8-4-4-4-12 digits; None: the original's."""
    networks: dict[str, str] = Field(default_factory=dict)
    """Names of networks: the original's to the target's; others keep their names."""


class ReplicaRemovePoint(Frozen):
    """Remove a restore point of a replica; one that is gone is removed."""

    kind: Literal[TaskKind.REPLICA_REMOVE_POINT] = TaskKind.REPLICA_REMOVE_POINT
    replica: ReplicaPlace
    run: Name


class ReplicaRevert(Frozen):
    """Make a replica's disks and VMX what they were at a restore point, and note its condition; may be repeated."""

    kind: Literal[TaskKind.REPLICA_REVERT] = TaskKind.REPLICA_REVERT
    replica: ReplicaPlace
    run: Name
    condition: ReplicaCondition


class ReplicaMark(Frozen):
    """Note a replica's condition. In a vCenter, one that is failed over is powered on.

    In the original that a failback wrote, permanent removes what it was kept as.
    """

    kind: Literal[TaskKind.REPLICA_MARK] = TaskKind.REPLICA_MARK
    replica: ReplicaPlace
    condition: ReplicaCondition
    run: Name | None = None
    """The restore point that it runs from, if any."""
