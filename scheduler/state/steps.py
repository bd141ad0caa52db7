"""What is being done at vCenters, the snapshots of ours there, and what the next backup's changes are relative to.

A step's row says what comes next, so that a scheduler killed anywhere goes on from here. Times are Unix seconds,
sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.outcome import TaskFailure
from scheduler.planning.places import TrackingMark
from scheduler.state.columns import Json, Record, choice


class StepState(StrEnum):
    """Where a step stands; the last two are final, and only scans are kept so long."""

    QUEUED = "queued"
    """To be started as soon as there is room."""
    STARTED = "started"
    """Being done; or left so by an earlier life of the scheduler, and to be done again."""
    WAITING = "waiting"
    """Failed, or not wanted before `retry_at`."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {StepState.SUCCEEDED, StepState.FAILED}


class VcenterStep(Record):
    """Something to be done at a vCenter. The row goes once its outcome is recorded where it belongs."""

    __tablename__ = "vcenter_steps"
    __table_args__ = (Index(None, "state", "retry_at"), Index(None, "subject"))

    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    """Of the kinds that the executor knows: `scan`, `snapshot`, `remove`, …"""
    vcenter: Mapped[str] = mapped_column(String(63))
    title: Mapped[str]
    """What people see: `snapshot of web01`."""
    request: Mapped[str]
    """The kind's request, as JSON."""
    state: Mapped[StepState] = mapped_column(choice(StepState), default=StepState.QUEUED)
    vm_ref: Mapped[str | None] = mapped_column(String(255), default=None)
    """The VM it is about: a VM is dealt with by one step at a time."""
    subject: Mapped[str | None] = mapped_column(String(120), default=None)
    """Whose it is: the entry in the journal of snapshots, a restore, as its kind has it."""
    priority: Mapped[int] = mapped_column(default=100)
    """Lower is sooner."""
    cancelling: Mapped[bool] = mapped_column(default=False)
    """Whether it has been, or is to be, told to stop."""
    tries: Mapped[int] = mapped_column(default=1)
    retry_at: Mapped[float | None] = mapped_column(default=None)
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    """Of the last try."""
    created_at: Mapped[float]
    started_at: Mapped[float | None] = mapped_column(default=None)
    ended_at: Mapped[float | None] = mapped_column(default=None)


class SnapshotState(StrEnum):
    """Where a snapshot of ours stands; the last two are final."""

    PLANNED = "planned"
    """Nothing has been done about it."""
    MAKING = "making"
    """It may or may not exist."""
    PRESENT = "present"
    REMOVING = "removing"
    GONE = "gone"
    GIVEN_UP = "given up"
    """The clean-up ladder didn't help."""

    @property
    def open(self) -> bool:
        """Whether a backup needs it, or may."""
        return self in {SnapshotState.MAKING, SnapshotState.PRESENT}


class SnapshotEntry(Record):
    """The journal of snapshots: one that was to be made, with how far removing it has come."""

    __tablename__ = "snapshots"
    __table_args__ = (Index(None, "state"), Index(None, "vm_run_id"))

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """What it is marked with: the name of the restore point it is for."""
    vcenter: Mapped[str] = mapped_column(String(63))
    vm_ref: Mapped[str] = mapped_column(String(255))
    vm_id: Mapped[str] = mapped_column(String(63))
    vm_name: Mapped[str] = mapped_column(String(255))
    vm_run_id: Mapped[str | None] = mapped_column(String(80), default=None)
    """None: found in vCenter, with our mark, though nothing here knew of it. Not a foreign key: it outlives."""
    datastores: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    """As vCenter calls them."""
    state: Mapped[SnapshotState] = mapped_column(choice(SnapshotState), default=SnapshotState.MAKING)
    ref: Mapped[str | None] = mapped_column(String(255), default=None)
    quiesced: Mapped[bool | None] = mapped_column(default=None)
    tries: Mapped[int] = mapped_column(default=0)
    """How often the clean-up ladder was climbed in vain."""
    last_try_at: Mapped[float | None] = mapped_column(default=None)
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    """Why it isn't removed."""
    warning: Mapped[str | None] = mapped_column(default=None)
    """What the VM run's warning says of that."""
    created_at: Mapped[float]
    made_at: Mapped[float | None] = mapped_column(default=None)
    removed_at: Mapped[float | None] = mapped_column(default=None)


class ChangeBaseOfPoint(Record):
    """Where change tracking of a disk stood in a restore point's snapshot; goes with the point."""

    __tablename__ = "change_bases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["repository", "vm_id", "point"],
            ["points.repository", "points.vm_id", "points.point"],
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
    )

    repository: Mapped[str] = mapped_column(String(63), primary_key=True)
    vm_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    point: Mapped[str] = mapped_column(String(63), primary_key=True)
    disk_key: Mapped[str] = mapped_column(String(63), primary_key=True)
    mark: Mapped[TrackingMark] = mapped_column(Json(TrackingMark))
