"""Where replicas lie: folders of datastores, or vCenters, as these are declared now."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session, object_session

from proxy_worker.contract.replication import ReplicaMachine, ReplicaPlace, VsphereHome
from scheduler.planning.replicas import ReplicaTerms
from scheduler.runs.steps import account_of
from scheduler.state.models import Datastore, DatastoreKind, Replica, ServiceMark, Vcenter

_MARK_KEY: Final = 1
_WAYS: Final = "ways to the vCenters of replicas"


def is_in_vcenter(session: Session, datastore: str) -> bool:
    """Whether replicas in a datastore are VMs of a vCenter."""
    declared = session.get(Datastore, datastore)
    return declared is not None and declared.kind is DatastoreKind.VSPHERE


def reached(replica: Replica) -> ReplicaPlace:
    """Where a replica of the database lies, and how its proxies get at it."""
    session = object_session(replica)
    if replica.machine is None or session is None:
        return replica.place
    known = session.info.setdefault(_WAYS, {})  # asked for once in a transaction, for however many replicas
    if replica.place.datastore not in known:
        known[replica.place.datastore] = _way(session, replica.place.datastore)
    way: VsphereHome | None = known[replica.place.datastore]
    if way is None:
        return replica.place
    own = {"uuid": replica.uuid or "", "mark": f"{way.mark}/replica-{replica.id}"}
    return replica.place.model_copy(update={"vsphere": way.model_copy(update=own)})


def _way(session: Session, datastore: str) -> VsphereHome | None:
    """The way to a datastore's vCenter, its mark our installation's; None where it isn't declared any more."""
    declared = session.get(Datastore, datastore)
    if declared is None or declared.kind is not DatastoreKind.VSPHERE:
        return None
    return VsphereHome(
        vcenter=account_of(session.get_one(Vcenter, declared.vcenter)).reference,
        datastore=declared.vsphere_name or declared.name,
        uuid="",
        mark=session.get_one(ServiceMark, _MARK_KEY).installation or "",
    )


def machine_of(replica: Replica, terms: ReplicaTerms | None) -> ReplicaMachine | None:
    """What a replica in a vCenter is made of."""
    if replica.machine is None:
        return None
    sizes = {disk.key: disk.size_bytes for disk in replica.original_disks}
    disks = tuple(disk.model_copy(update={"size_bytes": sizes.get(disk.key)}) for disk in replica.disks)
    networks = terms.networks if terms is not None else {}
    return ReplicaMachine(hardware=replica.machine, networks=networks, disks=disks)
