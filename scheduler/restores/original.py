"""Where a restore point's VM was: by the last run that saw it, and by the catalogue while it exists."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.state.models import VcenterVm, VmRun
from scheduler.state.restoring import OriginalPlace


@dataclass(frozen=True, slots=True)
class Original:
    """A VM as it was last seen."""

    vcenter: str
    place: OriginalPlace
    catalogued: VcenterVm | None
    """Its entry in the catalogue, if the vCenter still had it when it was last read."""


def original_of(session: Session, vm_id: str, point: str) -> Original | None:
    """The VM of a restore point; None if no vCenter is known to have had it."""
    catalogued = session.scalars(select(VcenterVm).where(VcenterVm.vm_id == vm_id)).first()
    if catalogued is not None:
        return Original(catalogued.vcenter, _of_catalogue(catalogued), catalogued)
    seen = session.scalars(
        select(VmRun)
        .where(VmRun.vm_id == vm_id, VmRun.place.is_not(None))
        .order_by(VmRun.repository_run != point, VmRun.started_at.desc())
        .limit(1)
    ).first()
    if seen is None or seen.place is None:
        return None
    place = seen.place
    home = next((file.vsphere_file.path for file in seen.configuration if file.vsphere_file is not None), None)
    datastore = _datastore(home) if home is not None else next(iter(place.datastores), None)
    return Original(
        place.vcenter,
        OriginalPlace(folder=place.folder, pool=place.pool, host=place.host, datastore=datastore),
        None,
    )


def _of_catalogue(vm: VcenterVm) -> OriginalPlace:
    home = _datastore(vm.configuration_path) if vm.configuration_path else next(iter(vm.datastores), None)
    pool = "/".join(part for part in (vm.cluster, vm.pool) if part)
    return OriginalPlace(folder=vm.folder, pool=pool or None, host=vm.host, datastore=home)


def _datastore(path: str) -> str:
    """`ds1` of `[ds1] web/web.vmx`."""
    return path.partition("] ")[0].removeprefix("[")
