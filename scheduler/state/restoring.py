"""Restores to a vCenter: a VM made anew, one that is written over, disks that are added to one.

Each row carries a state that says what comes next, so that a scheduler killed anywhere goes on from here. Times are
Unix seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field
from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.specification import VmPlace
from proxy_worker.contract.subjects import DiskAddress, DiskKey, Extent, Frozen
from proxy_worker.contract.using import PointServeResult
from scheduler.state.columns import Json, Record, choice, reference
from scheduler.state.recorded import DiskTaskState


class VmRestoreKind(StrEnum):
    """What is restored to."""

    NEW = "new VM"
    OVERWRITE = "existing VM"
    """Its disks are written over; it stays what it is otherwise."""
    DISK = "new disk"
    """Of an existing VM."""


class VmRestoreState(StrEnum):
    """Where a restore stands; the last three are final."""

    REQUESTED = "requested"
    PLACING = "placing"
    """What was asked for is looked up at the vCenter; nothing is changed."""
    SERVING = "serving"
    """A proxy begins to serve the restore point, for the VM to run from it."""
    MOUNTING = "mounting"
    """Its host mounts what is served."""
    CREATING = "creating"
    """The VM or its disks are made, or the VM is made ready to be written over."""
    WRITING = "writing"
    FINISHING = "finishing"
    """The mark is taken off, the VM powered on."""
    STARTING = "starting"
    """The VM is powered on, with the disks that are served."""
    RUNNING = "running"
    """It runs from its restore point, until its disks are to move."""
    MIGRATING = "migrating"
    """Its disks move to production."""
    RELEASING = "releasing"
    """The restore point isn't needed any more: it is unmounted, and served no more."""
    UNDOING = "undoing"
    """What was made is deleted again."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {VmRestoreState.SUCCEEDED, VmRestoreState.FAILED, VmRestoreState.CANCELLED}


class RestoreWishes(Frozen):
    """What was asked for, by name."""

    host: str | None = None
    folder: str | None = None
    pool: str | None = None
    datastore: str | None = None
    disk_datastores: dict[DiskKey, str] = Field(default_factory=dict)
    networks: dict[str, str] = Field(default_factory=dict)
    disk_format: DiskFormat = DiskFormat.THIN
    disks: tuple[DiskKey, ...] | None = None
    """Keys of the disks to restore; None: all."""
    instant: bool = False
    """Whether the VM runs from its restore point until its disks are in production."""
    stay: bool = False
    """Whether its disks move only when that is asked for."""
    power_on: bool = False
    power_off: bool = False
    """Whether an existing VM that is on may be powered off."""


class OriginalPlace(Frozen):
    """Where a VM was, as far as is known."""

    folder: str | None = None
    pool: str | None = None
    host: str | None = None
    datastore: str | None = None


class VmRestore(Record):
    """A restore of a VM, or of disks into one."""

    __tablename__ = "vm_restores"
    __table_args__ = (Index(None, "state"), Index(None, "created_at"))

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[VmRestoreKind] = mapped_column(choice(VmRestoreKind))
    repository: Mapped[str] = mapped_column(String(63))
    vm_id: Mapped[str] = mapped_column(String(63))
    """Whose restore point it is."""
    vm_name: Mapped[str] = mapped_column(String(255))
    point: Mapped[str] = mapped_column(String(63))
    vcenter: Mapped[str] = mapped_column(String(63))
    target_name: Mapped[str] = mapped_column(String(255))
    """The VM that is made or written."""
    wishes: Mapped[RestoreWishes] = mapped_column(Json(RestoreWishes))
    instance_uuid: Mapped[str] = mapped_column(String(63))
    """What vCenter knows the VM by, made anew or existing."""
    same_machine: Mapped[bool] = mapped_column(default=False)
    """Whether it takes the original's place."""
    state: Mapped[VmRestoreState] = mapped_column(choice(VmRestoreState), default=VmRestoreState.REQUESTED)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    cancelled: Mapped[bool] = mapped_column(default=False)
    """Whether it ends as cancelled once it is undone."""
    place: Mapped[VmPlace | None] = mapped_column(Json(VmPlace), default=None)
    """Where a new VM goes, once that is known."""
    vm_ref: Mapped[str | None] = mapped_column(String(255), default=None)
    tracks_changes: Mapped[bool] = mapped_column(default=False)
    """Whether change tracking of an existing VM is to be on again at the end."""
    touched: Mapped[bool] = mapped_column(default=False)
    """Whether anything may have been changed at the vCenter, so that a failure has to be undone."""
    written: Mapped[bool] = mapped_column(default=False)
    """Whether disks of an existing VM may have been written to."""
    share: Mapped[str | None] = mapped_column(String(63), default=None)
    """Of one that runs from its restore point: what a proxy serves it as. Until it has ended, that point stays."""
    served: Mapped[PointServeResult | None] = mapped_column(Json(PointServeResult), default=None)
    """Where that is."""
    served_by: Mapped[str | None] = mapped_column(String(63), default=None)
    """The proxy."""
    move_requested: Mapped[bool] = mapped_column(default=False)
    """Whether its disks are to move to production."""
    given_up: Mapped[bool] = mapped_column(default=False)
    """Whether what can't be let go of just now is to be left where it is."""
    warnings: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]), default=())
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    created_at: Mapped[float]
    started_at: Mapped[float | None] = mapped_column(default=None)
    ended_at: Mapped[float | None] = mapped_column(default=None)


class RestoredDisk(Record):
    """A disk of a restore."""

    __tablename__ = "restored_disks"
    __table_args__ = (UniqueConstraint("restore_id", "disk_key"), Index(None, "state", "retry_at"))

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    restore_id: Mapped[str] = mapped_column(reference("vm_restores.id", owned=True))
    disk_key: Mapped[str] = mapped_column(String(63))
    size_bytes: Mapped[int]
    target: Mapped[DiskAddress | None] = mapped_column(Json(DiskAddress), default=None)
    """What is written, once it is known."""
    blank: Mapped[bool] = mapped_column(default=False)
    """Whether it was made by this restore."""
    changed_areas: Mapped[tuple[Extent, ...] | None] = mapped_column(Json(tuple[Extent, ...]), default=None)
    full_write_reason: Mapped[str | None] = mapped_column(default=None)
    state: Mapped[DiskTaskState] = mapped_column(choice(DiskTaskState), default=DiskTaskState.QUEUED)
    tries: Mapped[int] = mapped_column(default=0)
    """How often it was put into the ledger."""
    attempts: Mapped[int] = mapped_column(default=0)
    """How often a proxy claimed it, over all tries."""
    retry_at: Mapped[float | None] = mapped_column(default=None)
    proxy: Mapped[str | None] = mapped_column(String(63), default=None)
    report: Mapped[DiskReport | None] = mapped_column(Json(DiskReport), default=None)
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
