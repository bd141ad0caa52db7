"""What happened and what is to happen: runs, VM runs, disk tasks, restores, requests, restore points.

Each row carries a state that says what comes next, so that a scheduler killed anywhere goes on from here.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.copying import CopyOf
from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import CompressionLevel, Quiesce, TaskKind
from proxy_worker.contract.outcome import PointDisk, TaskAttempt, TaskFailure, TaskResult
from proxy_worker.contract.replication import ReplicaTarget
from proxy_worker.contract.replication_outcome import DiskReplicateResult
from proxy_worker.contract.specification import TaskBody
from proxy_worker.contract.subjects import DiskAddress, Extent
from proxy_worker.contract.using import BootWishes
from scheduler.planning.copies import CopyTerms
from scheduler.planning.criteria import Criteria
from scheduler.planning.places import TrackingMark, VcenterPlace
from scheduler.planning.replicas import ReplicaTerms
from scheduler.state.columns import Json, Record, choice, reference
from scheduler.state.declared import Priority


class RunState(StrEnum):
    """Where a run stands; the last four are final."""

    REQUESTED = "requested"
    SCANNING = "scanning"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTLY_FAILED = "partly failed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in {RunState.REQUESTED, RunState.SCANNING, RunState.RUNNING}


class VmRunState(StrEnum):
    """Where a VM run stands; the last three are final."""

    SNAPSHOTTING = "snapshotting"
    """A VM of a vCenter is to be frozen; which disks it has is known after that."""
    OPENING = "opening"
    """Whether its replica can be written is found out."""
    PROTECTING = "protecting"
    """The original is kept as it is, before a replica's changes are brought back to it."""
    RUNNING = "running"
    COMMITTING = "committing"
    ABANDONING = "abandoning"
    """A commit's outcome is unknown or a failure: the tombstone decides whether there is a restore point."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {VmRunState.SUCCEEDED, VmRunState.FAILED, VmRunState.CANCELLED}


class DiskTaskState(StrEnum):
    """Where a disk task stands; while it is queued, the ledger knows more."""

    QUEUED = "queued"
    """In the ledger: ready, dispatched or running there."""
    WAITING = "waiting"
    """Failed, to be tried again at `retry_at`."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {DiskTaskState.SUCCEEDED, DiskTaskState.FAILED, DiskTaskState.CANCELLED}


class WorkState(StrEnum):
    """Where a restore, a request or a ledger task stands; the last three are final."""

    REQUESTED = "requested"
    RUNNING = "running"
    WAITING = "waiting"
    """Failed, to be tried again at `retry_at`."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {WorkState.SUCCEEDED, WorkState.FAILED, WorkState.CANCELLED}


class RunTrigger(StrEnum):
    """Who started a run."""

    MANUAL = "manual"
    SCHEDULE = "schedule"


class RequestKind(StrEnum):
    """Upkeep that a command asks for and `scheduler serve` has done by a proxy."""

    RESCAN = "repository.rescan"
    CHECK = "repository.check"
    SCRUB = "repository.scrub"
    COLLECT = "repository.collect"
    PROVE = "repository.prove"
    DELETE_POINT = "point.delete"
    BOOT_POINT = "point.boot"


class Run(Record):
    """One execution of a job, with the job's settings as they were when it was planned."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "state"), Index(None, "job", "created_at"))

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    job: Mapped[str] = mapped_column(String(63))
    trigger: Mapped[RunTrigger] = mapped_column(choice(RunTrigger), default=RunTrigger.MANUAL)
    state: Mapped[RunState] = mapped_column(choice(RunState), default=RunState.REQUESTED)
    created_at: Mapped[float]
    started_at: Mapped[float | None] = mapped_column(default=None)
    ended_at: Mapped[float | None] = mapped_column(default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(default=None)
    """Why it failed or was cancelled, in one line."""
    repository: Mapped[str] = mapped_column(String(63))
    """Empty for a replication."""
    replica: Mapped[ReplicaTerms | None] = mapped_column(Json(ReplicaTerms), default=None)
    """Where it replicates to; None: its job is of another kind."""
    failback_of: Mapped[str | None] = mapped_column(String(63), default=None)
    """The replica whose changes it brings back to the original."""
    level: Mapped[CompressionLevel] = mapped_column(choice(CompressionLevel))
    transport_mode: Mapped[str] = mapped_column(String(32))
    failover_to_network: Mapped[bool]
    priority: Mapped[Priority] = mapped_column(choice(Priority))
    retry_count: Mapped[int]
    retry_wait_seconds: Mapped[float]
    vms: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    copy_from: Mapped[CopyTerms | None] = mapped_column(Json(CopyTerms), default=None)
    """What it copies; None: its job is of another kind."""
    scanned_after: Mapped[float | None] = mapped_column(default=None)
    """What vCenters show has to be at least so new to plan it."""
    criteria: Mapped[Criteria] = mapped_column(Json(Criteria), default=Criteria())
    quiesce: Mapped[Quiesce] = mapped_column(choice(Quiesce), default=Quiesce.PREFER)
    retention_applied: Mapped[bool] = mapped_column(default=False)
    """Whether what its job doesn't keep any more has been asked for, since it ended."""
    notified: Mapped[bool] = mapped_column(default=False)
    """Whether all that is to be told of its end is in the outbox."""


class VmRun(Record):
    """One VM within a run, or one restore point of it that is copied.

    A name that no VM could be found for is one too, failed from the start.
    """

    __tablename__ = "vm_runs"
    __table_args__ = (Index(None, "run_id"), Index(None, "state"))

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    run_id: Mapped[str] = mapped_column(reference("runs.id", owned=True))
    vm_id: Mapped[str | None] = mapped_column(String(63), default=None)
    """None: a pattern or a datastore that yielded no VM; `name` says which."""
    name: Mapped[str] = mapped_column(String(255))
    state: Mapped[VmRunState] = mapped_column(choice(VmRunState), default=VmRunState.RUNNING)
    attempt: Mapped[int] = mapped_column(default=1)
    """Raised when the VM is retried under a new `repository_run`."""
    repository_run: Mapped[str | None] = mapped_column(String(63), default=None)
    """The name of its restore point, or of the tombstone in its place."""
    copy_of: Mapped[CopyOf | None] = mapped_column(Json(CopyOf), default=None)
    """The restore point that it copies; None: it is no copy."""
    configuration: Mapped[tuple[DiskAddress, ...]] = mapped_column(Json(tuple[DiskAddress, ...]), default=())
    replica_id: Mapped[str | None] = mapped_column(String(63), default=None)
    """Of a replication: what is brought up to date, or back to its original."""
    place: Mapped[VcenterPlace | None] = mapped_column(Json(VcenterPlace), default=None)
    """Where a vCenter has it; None: its disks are read without a snapshot."""
    cancelled: Mapped[bool] = mapped_column(default=False)
    """Whether the abandoned VM run ends as cancelled rather than failed."""
    reason: Mapped[str | None] = mapped_column(default=None)
    warning: Mapped[str | None] = mapped_column(default=None)
    started_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(default=None)


class DiskTask(Record):
    """One virtual disk of a VM run: the unit that is queued, claimed, resumed, retried."""

    __tablename__ = "disk_tasks"
    __table_args__ = (
        Index(None, "run_id"),
        Index(None, "state", "retry_at"),
        UniqueConstraint("vm_run_id", "disk_key"),
    )

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    vm_run_id: Mapped[str] = mapped_column(reference("vm_runs.id", owned=True))
    run_id: Mapped[str] = mapped_column(reference("runs.id", owned=True))
    disk_key: Mapped[str] = mapped_column(String(63))
    address: Mapped[DiskAddress] = mapped_column(Json(DiskAddress))
    size_bytes: Mapped[int | None] = mapped_column(default=None)
    changed_areas: Mapped[tuple[Extent, ...] | None] = mapped_column(Json(tuple[Extent, ...]), default=None)
    """Since `parent`, as vCenter tells; without one, those in use. Kept for retries, until the VM run has ended."""
    parent: Mapped[str | None] = mapped_column(String(63), default=None)
    full_read_reason: Mapped[str | None] = mapped_column(default=None)
    """Why vCenter can't tell what changed."""
    tracking: Mapped[TrackingMark | None] = mapped_column(Json(TrackingMark), default=None)
    """Where change tracking stood in the snapshot: the restore point's, once it is committed."""
    target: Mapped[ReplicaTarget | None] = mapped_column(Json(ReplicaTarget), default=None)
    """Of a replication: what is written."""
    target_proxy: Mapped[str | None] = mapped_column(String(63), default=None)
    """The proxy that wrote it last."""
    state: Mapped[DiskTaskState] = mapped_column(choice(DiskTaskState), default=DiskTaskState.QUEUED)
    tries: Mapped[int] = mapped_column(default=1)
    """How often it was put into the ledger for the present attempt of its VM run: 1 + retries."""
    attempts: Mapped[int] = mapped_column(default=0)
    """How often a proxy claimed it, over all tries."""
    retry_at: Mapped[float | None] = mapped_column(default=None)
    proxy: Mapped[str | None] = mapped_column(String(63), default=None)
    """The proxy that had it last."""
    fence: Mapped[int | None] = mapped_column(default=None)
    result: Mapped[DiskBackupResult | DiskReplicateResult | None] = mapped_column(
        Json(DiskBackupResult | DiskReplicateResult), default=None
    )
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    """Of the last try that failed."""
    checkpoint: Mapped[str | None] = mapped_column(default=None)
    """Sealed: where the next try of the same attempt can go on."""
    queued_at: Mapped[float | None] = mapped_column(default=None)
    """When it was first put into the ledger."""
    history: Mapped[tuple[TaskAttempt, ...]] = mapped_column(Json(tuple[TaskAttempt, ...]), default=())
    """When which proxy held it, over all tries."""
    started_at: Mapped[float | None] = mapped_column(default=None)
    ended_at: Mapped[float | None] = mapped_column(default=None)


class LedgerTask(Record):
    """What the ledger has been, or is to be, given: the journal that the ledger is rebuilt from.

    A row lives until the outcome has been recorded where it belongs: at the disk task, the VM run (commit,
    abandon), the run (inventory), the restore, the VM's restore or the request that the last columns name. Each
    try has an id of its own, since the ledger may still hold the former one's outcome.
    """

    __tablename__ = "ledger_tasks"
    __table_args__ = (
        Index(None, "state"),
        Index(None, "disk_task_id"),
        Index(None, "vm_run_id"),
        Index(None, "run_id"),
        Index(None, "restore_id"),
        Index(None, "vm_restore_id"),
        Index(None, "request_id"),
        Index(None, "replica_id"),
        Index(None, "operation_id"),
    )

    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    kind: Mapped[TaskKind] = mapped_column(choice(TaskKind))
    title: Mapped[str]
    """What people see: `disk.backup web01 scsi0:0`."""
    job: Mapped[str]
    """What fairness counts by: the job's name, or what stands in for it."""
    priority: Mapped[int]
    """Lower is sooner."""
    state: Mapped[WorkState] = mapped_column(choice(WorkState), default=WorkState.RUNNING)
    cancelling: Mapped[bool] = mapped_column(default=False)
    """Whether the ledger has been, or is to be, told to cancel it."""
    body: Mapped[TaskBody] = mapped_column(Json(TaskBody))
    checkpoint: Mapped[str | None] = mapped_column(default=None)
    pinned_proxy: Mapped[str | None] = mapped_column(String(63), default=None)
    created_at: Mapped[float]
    retry_at: Mapped[float | None] = mapped_column(default=None)
    tries: Mapped[int] = mapped_column(default=1)
    result: Mapped[TaskResult | None] = mapped_column(Json(TaskResult), default=None)
    """Of an inventory scan, until the plan is made."""
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    disk_task_id: Mapped[str | None] = mapped_column(reference("disk_tasks.id", owned=True), default=None)
    vm_run_id: Mapped[str | None] = mapped_column(reference("vm_runs.id", owned=True), default=None)
    run_id: Mapped[str | None] = mapped_column(reference("runs.id", owned=True), default=None)
    restore_id: Mapped[str | None] = mapped_column(reference("restores.id", owned=True), default=None)
    vm_restore_id: Mapped[str | None] = mapped_column(reference("vm_restores.id", owned=True), default=None)
    request_id: Mapped[str | None] = mapped_column(reference("requests.id", owned=True), default=None)
    replica_id: Mapped[str | None] = mapped_column(reference("replicas.id", owned=True), default=None)
    operation_id: Mapped[str | None] = mapped_column(reference("replica_operations.id", owned=True), default=None)
    partner_id: Mapped[str | None] = mapped_column(String(120), default=None)
    """Of a disk that is replicated: the task that receives it."""


class Restore(Record):
    """One disk of a restore point, written to a path of a proxy."""

    __tablename__ = "restores"
    __table_args__ = (Index(None, "state"),)

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    repository: Mapped[str] = mapped_column(String(63))
    vm_id: Mapped[str] = mapped_column(String(63))
    vm_name: Mapped[str] = mapped_column(String(255))
    point: Mapped[str] = mapped_column(String(63))
    disk_key: Mapped[str] = mapped_column(String(63))
    proxy: Mapped[str] = mapped_column(String(63))
    target_path: Mapped[str]
    overwrite: Mapped[bool] = mapped_column(default=False)
    state: Mapped[WorkState] = mapped_column(choice(WorkState), default=WorkState.REQUESTED)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    report: Mapped[DiskReport | None] = mapped_column(Json(DiskReport), default=None)
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    created_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(default=None)


class Request(Record):
    """Upkeep that was asked for."""

    __tablename__ = "requests"
    __table_args__ = (Index(None, "state"),)

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[RequestKind] = mapped_column(choice(RequestKind))
    repository: Mapped[str] = mapped_column(String(63))
    vm_id: Mapped[str | None] = mapped_column(String(63), default=None)
    """With the next two: which restore point is to be removed, or a VM started from."""
    vm_name: Mapped[str | None] = mapped_column(String(255), default=None)
    point: Mapped[str | None] = mapped_column(String(63), default=None)
    reason: Mapped[str | None] = mapped_column(default=None)
    """Why it is removed."""
    boot: Mapped[BootWishes | None] = mapped_column(Json(BootWishes), default=None)
    """How the VM is started."""
    state: Mapped[WorkState] = mapped_column(choice(WorkState), default=WorkState.REQUESTED)
    result: Mapped[TaskResult | None] = mapped_column(Json(TaskResult), default=None)
    """A check's findings; a rescan's are in the catalogue, and `summary` counts them."""
    summary: Mapped[str | None] = mapped_column(default=None)
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    created_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(default=None)


class Point(Record):
    """A restore point, as the catalogue knows it; the repository is the truth."""

    __tablename__ = "points"
    __table_args__ = (Index(None, "vm_name", "created_at"),)

    repository: Mapped[str] = mapped_column(String(63), primary_key=True)
    vm_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    point: Mapped[str] = mapped_column(String(63), primary_key=True)
    vm_name: Mapped[str] = mapped_column(String(255))
    job: Mapped[str]
    created_at: Mapped[float]
    disks: Mapped[tuple[PointDisk, ...]] = mapped_column(Json(tuple[PointDisk, ...]))
    pinned: Mapped[bool] = mapped_column(default=False)
    """Whether it stays whatever its job says."""
    proven_at: Mapped[float | None] = mapped_column(default=None)
    """All that it needs was read, and was sound, since then; None: not all of it has been."""
    sampled_at: Mapped[float | None] = mapped_column(default=None)
    """When a sample of it was restored last."""
    damaged: Mapped[bool] = mapped_column(default=False)
    """Whether it can't be read, or something that it needs is lost, and waits for repair."""
    booted_at: Mapped[float | None] = mapped_column(default=None)
    """When a VM was last started from it, whatever came of that."""
    boot_problem: Mapped[str | None] = mapped_column(default=None)
    """Why that one showed no login prompt; None: it did, or there was none."""


class ServiceMark(Record):
    """The one row that the service itself keeps."""

    __tablename__ = "service"

    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    epoch: Mapped[int] = mapped_column(default=0)
    """Of the ledger."""
    installation: Mapped[str | None] = mapped_column(String(63), default=None)
    """Random, made once: what our snapshots in vCenters are marked with."""
    backup_tried_at: Mapped[float | None] = mapped_column(default=None)
    """When the server's own backup was last begun."""
    backed_up_at: Mapped[float | None] = mapped_column(default=None)
    """When the newest backup of the server that succeeded was begun."""
    backup_failure: Mapped[str | None] = mapped_column(default=None)
    """Why the last one failed; None: it didn't, or it is under way."""
