"""What vCenters showed when they were last read, and the reading of them that was asked for.

The catalogue is what people look at and jobs are planned from; vCenter is the truth. Times are Unix seconds, sizes
bytes.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.outcome import TaskFailure
from scheduler.state.columns import Json, Record, choice, reference
from scheduler.state.recorded import WorkState


class CataloguedDisk(BaseModel):
    """One virtual disk, as vCenter described it."""

    model_config = ConfigDict(frozen=True)

    key: str
    """Its place in the VM: `scsi0:0`."""
    device_key: int
    controller: str
    label: str
    size_bytes: int
    provisioning: str
    mode: str
    """E.g. `persistent` or `independent_persistent`."""
    path: str | None
    """`[datastore] folder/disk.vmdk`; None: it has no file."""
    datastore: str | None
    """As vCenter calls it."""
    datastore_type: str
    """As vSphere says: `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`, …"""
    uuid: str | None = None
    obstacle: str | None = None
    """Why no snapshot covers it; None: one does."""

    @property
    def independent(self) -> bool:
        """Whether its mode leaves it out of snapshots."""
        return self.mode.startswith("independent")


class VcenterVm(Record):
    """A VM or template of a vCenter. `ref` means something in that vCenter only."""

    __tablename__ = "vcenter_vms"
    __table_args__ = (Index(None, "vm_id"), Index(None, "name"))

    vcenter: Mapped[str] = mapped_column(reference("vcenters.name", owned=True), primary_key=True)
    ref: Mapped[str] = mapped_column(String(255), primary_key=True)
    """Its managed object id."""
    vm_id: Mapped[str] = mapped_column(String(63))
    """What repositories file it under."""
    name: Mapped[str] = mapped_column(String(255))
    datacenter: Mapped[str | None]
    """Its path: `Europe/DC0`."""
    folder: Mapped[str]
    """Datacentre and folders: `DC0/Linux/web`."""
    cluster: Mapped[str | None]
    pool: Mapped[str | None]
    """Below the cluster; "" if it is directly there, None for a template."""
    host: Mapped[str | None]
    datastores: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    """As vCenter calls them."""
    tags: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    """`Category/name`."""
    attributes: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]))
    """Custom attributes."""
    template: Mapped[bool]
    powered_on: Mapped[bool]
    tools_running: Mapped[bool]
    windows: Mapped[bool]
    """Whether its guest is, as it was told to be when it was made."""
    encrypted: Mapped[bool]
    tracks_changes: Mapped[bool]
    can_track_changes: Mapped[bool]
    snapshots: Mapped[int]
    """How many it had, whoever made them."""
    configuration_path: Mapped[str | None]
    """Its VMX: `[datastore] folder/name.vmx`."""
    disks: Mapped[tuple[CataloguedDisk, ...]] = mapped_column(Json(tuple[CataloguedDisk, ...]))
    problem: Mapped[str | None]
    """Why it can't be protected as it stands."""
    seen_at: Mapped[float]


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
