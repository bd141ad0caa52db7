"""What a proxy reports: progress while it works, one outcome at the end.

Sizes are in bytes, durations in seconds, rates in bytes per second. Nothing here is secret: the scheduler,
the CLI and Flower show it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from proxy_worker.contract.copying import CopyPlanResult
from proxy_worker.contract.disks import DiskBackupResult, DiskRestoreResult
from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.replication_outcome import (
    DiskReceiveResult,
    DiskReplicateResult,
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.contract.requests import StoreRequests
from proxy_worker.contract.subjects import DiskAddress, DiskKey, Frozen, InventoryVm, Name, VmIdentity
from proxy_worker.contract.using import PointBootResult, PointReleaseResult, PointServeResult


class CreatedDisk(Frozen):
    """A disk of a VM that was made."""

    key: DiskKey
    target: DiskAddress
    """Its `vsphere` says how it is written."""
    size_bytes: int


class VmCreateResult(Frozen):
    """A VM exists, powered off, marked, with empty disks."""

    kind: Literal[TaskKind.VM_CREATE] = TaskKind.VM_CREATE
    vm: str
    """Its managed object id."""
    name: str
    disks: tuple[CreatedDisk, ...]
    warnings: tuple[str, ...] = ()
    """What of the configuration could not be taken over."""


class InventoryScanResult(Frozen):
    """The VMs of a datastore; those with a problem are listed with it."""

    kind: Literal[TaskKind.INVENTORY_SCAN] = TaskKind.INVENTORY_SCAN
    vms: tuple[InventoryVm, ...]


class PointDisk(Frozen):
    """A disk of a restore point."""

    key: DiskKey
    size_bytes: int
    stored_bytes: int


class PointSummary(Frozen):
    """A restore point as lists show it."""

    vm: VmIdentity
    run: Name
    job: str
    created_at: float
    disks: tuple[PointDisk, ...]


class StoreSpace(Frozen):
    """Of the file system that a repository lies on."""

    size_bytes: int
    free_bytes: int


class RepositoryCommitResult(Frozen):
    """The restore point exists."""

    kind: Literal[TaskKind.REPOSITORY_COMMIT] = TaskKind.REPOSITORY_COMMIT
    point: PointSummary
    space: StoreSpace | None = None


class RepositoryAbandonResult(Frozen):
    """The run has ended without a restore point; `committed` when one had been created before."""

    kind: Literal[TaskKind.REPOSITORY_ABANDON] = TaskKind.REPOSITORY_ABANDON
    committed: bool


class RepositoryListResult(Frozen):
    """Every restore point of a repository."""

    kind: Literal[TaskKind.REPOSITORY_LIST] = TaskKind.REPOSITORY_LIST
    repository_id: str
    points: tuple[PointSummary, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    """VM id and run of those that are there and can't be read, as of a bad sector: that may pass."""
    space: StoreSpace | None = None


class RepositoryCheckResult(Frozen):
    """What a check read and found."""

    kind: Literal[TaskKind.REPOSITORY_CHECK] = TaskKind.REPOSITORY_CHECK
    packs: int
    read_bytes: int
    duration_seconds: float
    damage: tuple[str, ...]
    """One line each: the object, what is wrong with it, and which restore points need it."""
    requests: StoreRequests | None = None


class KeptPacks(Frozen):
    """Packs that a collection left."""

    packs: int
    size_bytes: int
    why: str


class RepositoryCollectResult(Frozen):
    """What a collection freed and kept."""

    kind: Literal[TaskKind.REPOSITORY_COLLECT] = TaskKind.REPOSITORY_COLLECT
    dry_run: bool
    points: int
    packs: int
    live_bytes: int
    freed_packs: int
    freed_bytes: int
    rewritten_packs: int
    moved_bytes: int
    waiting_for: tuple[str, ...]
    """Runs at work (VM id and run) that may need what is condemned; the next collection goes on."""
    kept: tuple[KeptPacks, ...]
    notes: tuple[str, ...]
    duration_seconds: float
    requests: StoreRequests | None = None


class ProvenPoint(Frozen):
    """What is known of a restore point. Times in Unix seconds, None for never."""

    vm_id: str
    run: str
    proven_at: int | None
    """All that it needs has been read, and was sound, since then."""
    sampled_at: int | None
    damaged: bool
    """Something that it needs is lost, and waits for repair."""


class RepositoryProveResult(Frozen):
    """What a piece of a repository's proof has read, found and mended."""

    kind: Literal[TaskKind.REPOSITORY_PROVE] = TaskKind.REPOSITORY_PROVE
    packs: int
    read_bytes: int
    sampled: int
    """Restore points of which a sample was restored."""
    overdue: int
    """Packs and index fragments that should have been read by now."""
    damage: tuple[str, ...]
    """One line each: the object, what is wrong with it, and which restore points wait for its repair."""
    mended: tuple[str, ...]
    """Damaged objects with which nothing is lost any more."""
    notes: tuple[str, ...] = ()
    points: tuple[ProvenPoint, ...]
    duration_seconds: float
    requests: StoreRequests | None = None


class PointDeleteResult(Frozen):
    """There is no such restore point any more; `found` unless there never was."""

    kind: Literal[TaskKind.POINT_DELETE] = TaskKind.POINT_DELETE
    found: bool


class StorageSnapshotCreateResult(Frozen):
    """The disks are frozen on their storage, and the VM's own snapshot isn't needed for them any more."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_CREATE] = TaskKind.STORAGE_SNAPSHOT_CREATE
    duration_seconds: float


class StorageSnapshotRemoveResult(Frozen):
    """The storage snapshot is gone; `existed` if it was there before."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_REMOVE] = TaskKind.STORAGE_SNAPSHOT_REMOVE
    existed: bool


class StorageSnapshotListResult(Frozen):
    """The journal entries that an installation's storage snapshots are marked with."""

    kind: Literal[TaskKind.STORAGE_SNAPSHOT_LIST] = TaskKind.STORAGE_SNAPSHOT_LIST
    journals: tuple[str, ...]


TaskResult = Annotated[
    DiskBackupResult
    | DiskRestoreResult
    | VmCreateResult
    | InventoryScanResult
    | CopyPlanResult
    | RepositoryCommitResult
    | RepositoryAbandonResult
    | RepositoryListResult
    | RepositoryCheckResult
    | RepositoryCollectResult
    | RepositoryProveResult
    | PointDeleteResult
    | PointBootResult
    | PointServeResult
    | PointReleaseResult
    | StorageSnapshotCreateResult
    | StorageSnapshotRemoveResult
    | StorageSnapshotListResult
    | DiskReceiveResult
    | DiskReplicateResult
    | ReplicaOpenResult
    | ReplicaPointResult
    | ReplicaRemovePointResult
    | ReplicaRevertResult
    | ReplicaMarkResult,
    Field(discriminator="kind"),
]


class TaskFailure(Frozen):
    """Why a task failed, in the words of the error that ended it."""

    code: str
    what: str
    why: str = ""
    remedy: str = ""
    retryable: bool = False
    exit_code: int = 1
    log: tuple[str, ...] = ()
    """The last lines that the task wrote, where it couldn't say itself why it failed."""

    @classmethod
    def of(cls, error: ProxyfleetError) -> TaskFailure:
        """The failure that `error` describes."""
        return cls(
            code=error.code(),
            what=error.what,
            why=error.why,
            remedy=error.remedy,
            retryable=error.retryable,
            exit_code=error.exit_code,
        )

    def __str__(self) -> str:
        return str(ProxyfleetError(self.what, why=self.why, remedy=self.remedy))


class AttemptOutcome(StrEnum):
    """How a proxy's attempt at a task ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"
    """It was handed back, or its lease was lost; the task was ready again."""


class TaskAttempt(Frozen):
    """One time that a proxy held a task. Times are Unix seconds, of Redis' clock."""

    proxy: str
    started_at: float
    ended_at: float | None = None
    outcome: AttemptOutcome | None = None
    note: str = ""
    """Why, where the proxy couldn't say."""
    processed_bytes: int | None = None
    """As far as it had told."""
