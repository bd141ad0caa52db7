"""What vCenters showed, kept in the catalogue and taken out of it again."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.subjects import VcenterReference
from scheduler.planning.candidates import Candidate
from scheduler.planning.inventory import ScannedVm, Surroundings, candidate_of
from scheduler.state.models import Datastore, DatastoreKind, Vcenter, VcenterVm


def store_scan(session: Session, vcenter: str, vms: Iterable[ScannedVm], now: float) -> str:
    """Make the catalogue of a vCenter what it showed at `now`; returns what changed, in a line.

    A vCenter that isn't declared any more is left out.
    """
    row = session.get(Vcenter, vcenter)
    if row is None:
        return "it is not declared any more"
    row.scanned_at = now
    known = {vm.ref: vm for vm in session.scalars(select(VcenterVm).where(VcenterVm.vcenter == vcenter))}
    seen: set[str] = set()
    added = 0
    for found in vms:
        seen.add(found.ref)
        kept = known.get(found.ref)
        if kept is None:
            kept = VcenterVm(vcenter=vcenter, ref=found.ref)
            session.add(kept)
            added += 1
        for key in type(found).model_fields:
            value = getattr(found, key)
            if getattr(kept, key, None) != value:  # rows that say the same already are not written
                setattr(kept, key, value)
    gone = [vm for ref, vm in known.items() if ref not in seen]
    for vm in gone:
        session.delete(vm)
    return f"{len(seen)} VMs: {added} new, {len(gone)} gone"


def catalogued_candidates(session: Session, vcenters: Collection[str]) -> list[Candidate]:
    """The VMs that these vCenters showed last, as jobs choose from them."""
    around = {
        row.name: Surroundings(vcenter_reference(row), _declared_datastores(session, row.name))
        for row in session.scalars(select(Vcenter).where(Vcenter.name.in_(vcenters)))
    }
    rows = session.scalars(select(VcenterVm).where(VcenterVm.vcenter.in_(around)))
    return [candidate_of(ScannedVm.model_validate(row), around[row.vcenter]) for row in rows]


def vcenter_reference(row: Vcenter) -> VcenterReference:
    """How a proxy finds a declared vCenter."""
    return VcenterReference(
        name=row.name,
        host=row.host,
        port=row.port,
        user=row.user,
        credential=row.credential,
        thumbprint=row.thumbprint,
    )


def declared_datastores(session: Session, vcenter: str, datacenter: str | None) -> dict[str, str]:
    """The declared name of each of a vCenter's datastores, by what it is called within this datacentre."""
    within, elsewhere = {}, {}
    for name, declared in _declared_datastores(session, vcenter).items():
        path, slash, last = name.rpartition("/")
        if slash and path == datacenter:
            within[last] = declared
        elif not slash:
            elsewhere[name] = declared
    return elsewhere | within


def _declared_datastores(session: Session, vcenter: str) -> dict[str, str]:
    declared = select(Datastore).where(Datastore.kind == DatastoreKind.VSPHERE, Datastore.vcenter == vcenter)
    return {row.vsphere_name or row.name: row.name for row in session.scalars(declared)}
