"""What is kept of a vCenter's VM from its plan to its next run. Sizes are in bytes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class VcenterPlace(BaseModel):
    """A VM in vCenter's words, as the plan found it, and which of its disks the job leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    vcenter: str
    ref: str
    """Its managed object id, which changes when it is unregistered and registered again."""
    datacenter: str | None = None
    """The datacentre's path, e.g. `Europe/DC0`."""
    datastores: tuple[str, ...] = ()
    """Those its disks lie on, as vCenter calls them."""
    excluded_disks: tuple[str, ...] = ()
    """Keys of disks that the job leaves out, e.g. `scsi0:1`."""
    windows: bool = False
    """Whether its guest is Windows, which quiescing treats otherwise."""
    folder: str | None = None
    """Datacentre and folders, `DC0/Linux/web`: where a restore puts it again once it is gone."""
    pool: str | None = None
    """Its cluster, and the pool below it: `DC0_C0/web`."""
    host: str | None = None


class TrackingMark(BaseModel):
    """Where change tracking of a disk stood when it was frozen. Valid for that very disk only."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    change_id: str
    disk_uuid: str
    size_bytes: int
