"""Replicas: VMs that are kept ready to take others' places, their restore points, and what is done with them.

Each row carries a state that says what comes next, so that a scheduler killed anywhere goes on from here. Times are
Unix seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.replication import ReplicaPlace
from proxy_worker.contract.subjects import DiskIdentity
from scheduler.state.columns import Json, Record, choice, reference
from scheduler.state.recorded import WorkState


class ReplicaState(StrEnum):
    """What a replica is."""

    NEW = "new"
    """It has no restore point yet."""
    STANDBY = "standby"
    """Runs of its job bring it up to date."""
    FAILED_OVER = "failed over"
    """It has taken the original's place."""
    FAILED_BACK = "failed back"
    """Its changes are in the original; `commit` makes it a standby again, `undo` takes them out of the original."""
    PERMANENT = "permanent"
    """A VM of its own, for good."""


class ReplicaOperationKind(StrEnum):
    """What can be done with a replica."""

    FAILOVER = "failover"
    PLANNED_FAILOVER = "planned-failover"
    UNDO = "undo"
    PERMANENT = "permanent"
    FAILBACK = "failback"
    COMMIT = "commit"


class Replica(Record):
    """A VM at the target, and the original that it stands for."""

    __tablename__ = "replicas"
    __table_args__ = (UniqueConstraint("job", "vm_id"),)

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    job: Mapped[str] = mapped_column(String(63))
    vm_id: Mapped[str] = mapped_column(String(63))
    """The original's."""
    vm_name: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(255))
    place: Mapped[ReplicaPlace] = mapped_column(Json(ReplicaPlace))
    mapped: Mapped[bool] = mapped_column(default=False)
    """Whether it was a VM before, whose name and configuration stay."""
    uuid: Mapped[str | None] = mapped_column(String(36), default=None)
    """The `uuid.bios` of its own that it gets."""
    disks: Mapped[tuple[DiskIdentity, ...]] = mapped_column(Json(tuple[DiskIdentity, ...]), default=())
    machine: Mapped[str | None] = mapped_column(Text, default=None)
    """What its original was made of when a run began last, as proxies tell each other; only in a vCenter. Empty
    until the original's own vCenter has been asked."""
    original_place: Mapped[ReplicaPlace] = mapped_column(Json(ReplicaPlace))
    """The original's folder; in a vCenter, that and the original's id."""
    original_disks: Mapped[tuple[DiskIdentity, ...]] = mapped_column(Json(tuple[DiskIdentity, ...]), default=())
    state: Mapped[ReplicaState] = mapped_column(choice(ReplicaState), default=ReplicaState.NEW)
    point: Mapped[str | None] = mapped_column(String(63), default=None)
    """What it runs from, once it is failed over."""
    before: Mapped[str | None] = mapped_column(String(63), default=None)
    """What the original is kept as, while the replica's changes are in it or on their way there."""
    created_at: Mapped[float]
    changed_at: Mapped[float]
    """When its state changed last."""

    @property
    def original_vcenter(self) -> str | None:
        """The vCenter that has its original; None: that lies in a folder."""
        found = (disk.address.vsphere for disk in self.original_disks)
        return next((vsphere.vcenter.name for vsphere in found if vsphere is not None), None)

    @property
    def can_fail_back(self) -> bool:
        """Whether changes can be brought back: not to a folder without all of the original's disks beside it."""
        return self.original_vcenter is not None or all(
            disk.address.datastore == self.original_place.datastore and disk.address.path is not None
            for disk in self.original_disks
        )


class ReplicaPoint(Record):
    """A restore point of a replica."""

    __tablename__ = "replica_points"

    replica_id: Mapped[str] = mapped_column(reference("replicas.id", owned=True), primary_key=True)
    point: Mapped[str] = mapped_column(String(63), primary_key=True)
    created_at: Mapped[float]
    reflinked: Mapped[bool] = mapped_column(default=False)
    """Whether it shares its blocks with the replica, instead of being a copy."""
    size_bytes: Mapped[int] = mapped_column(default=0)


class ReplicaOperation(Record):
    """Something that was asked for a replica, and how far it is."""

    __tablename__ = "replica_operations"
    __table_args__ = (Index(None, "state"), Index(None, "replica_id"))

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    replica_id: Mapped[str] = mapped_column(reference("replicas.id", owned=True))
    kind: Mapped[ReplicaOperationKind] = mapped_column(choice(ReplicaOperationKind))
    point: Mapped[str | None] = mapped_column(String(63), default=None)
    """What a failover starts from, or a commit makes."""
    state: Mapped[WorkState] = mapped_column(choice(WorkState), default=WorkState.REQUESTED)
    step: Mapped[int] = mapped_column(default=0)
    """How many of its steps are done."""
    undoing: Mapped[bool] = mapped_column(default=False)
    """Whether a failback that failed, or a failover that was cancelled, is taken back; `step` counts the steps of
    that then."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    run_id: Mapped[str | None] = mapped_column(String(63), default=None)
    """The run that moves its disks."""
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    created_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(default=None)
