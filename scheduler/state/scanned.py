"""What vCenters showed when they were last read, and the reading of them that was asked for.

The catalogue is what people look at and jobs are planned from; vCenter is the truth. Times are Unix seconds, sizes
bytes.
"""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.outcome import TaskFailure
from scheduler.planning.inventory import ScannedDisk
from scheduler.state.columns import Json, Record, choice, reference
from scheduler.state.recorded import WorkState


class VcenterVm(Record):
    """A VM or template of a vCenter: `ScannedVm` says what its columns mean."""

    __tablename__ = "vcenter_vms"
    __table_args__ = (Index(None, "vm_id"), Index(None, "name"))

    vcenter: Mapped[str] = mapped_column(reference("vcenters.name", owned=True), primary_key=True)
    ref: Mapped[str] = mapped_column(String(255), primary_key=True)
    vm_id: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(255))
    datacenter: Mapped[str | None]
    folder: Mapped[str]
    cluster: Mapped[str | None]
    pool: Mapped[str | None]
    host: Mapped[str | None]
    datastores: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    tags: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    attributes: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]))
    template: Mapped[bool]
    powered_on: Mapped[bool]
    tools_running: Mapped[bool]
    windows: Mapped[bool]
    encrypted: Mapped[bool]
    tracks_changes: Mapped[bool]
    can_track_changes: Mapped[bool]
    snapshots: Mapped[int]
    configuration_path: Mapped[str | None]
    disks: Mapped[tuple[ScannedDisk, ...]] = mapped_column(Json(tuple[ScannedDisk, ...]))
    problem: Mapped[str | None]


class VcenterScan(Record):
    """A reading of a vCenter that a command asked for and `scheduler serve` does."""

    __tablename__ = "vcenter_scans"
    __table_args__ = (Index(None, "state"),)

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    vcenter: Mapped[str] = mapped_column(reference("vcenters.name", owned=True))
    state: Mapped[WorkState] = mapped_column(choice(WorkState), default=WorkState.REQUESTED)
    summary: Mapped[str | None] = mapped_column(default=None)
    """What was found, in one line."""
    failure: Mapped[TaskFailure | None] = mapped_column(Json(TaskFailure), default=None)
    created_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(default=None)
