"""Where replicas and their originals lie: folders of datastores, or vCenters, as these are declared now."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session, object_session

from proxy_worker.contract.replication import ReplicaMachine, ReplicaPlace, ReplicaTarget, VsphereHome
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity
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


def reached_original(replica: Replica) -> ReplicaPlace:
    """Where a replica's original lies, and how its proxies get at it to write it."""
    session = object_session(replica)
    if replica.original_vcenter is None or session is None:
        return replica.original_place
    vcenter = session.get(Vcenter, replica.original_vcenter)
    if vcenter is None:
        return replica.original_place
    home = VsphereHome(
        vcenter=account_of(vcenter).reference,
        datastore=_datastore_of_original(replica),
        uuid=replica.vm_id,
        mark=f"{_installation(session)}/replica-{replica.id}",
        original=True,
    )
    return replica.original_place.model_copy(update={"vsphere": home})


def original_targets(replica: Replica) -> dict[str, ReplicaTarget]:
    """The disks of an original, as a failback writes them, by their keys."""
    place = reached_original(replica)
    return {
        disk.key: ReplicaTarget(place=place, disk=_written(disk, place), original=replica.vm_id, back=True)
        for disk in replica.original_disks
    }


def _written(disk: DiskIdentity, place: ReplicaPlace) -> DiskIdentity:
    """In a vCenter a disk is found by its key, whatever its file is called by now."""
    if place.vsphere is None:
        return disk
    address = DiskAddress(datastore=place.datastore, path=f"{place.folder}/{disk.key}")
    return disk.model_copy(update={"address": address})


def _datastore_of_original(replica: Replica) -> str:
    """What its vCenter calls the datastore of its first disk."""
    found = (disk.address.vsphere for disk in replica.original_disks)
    paths = (vsphere.path for vsphere in found if vsphere is not None)
    return next(paths, "").partition("]")[0].removeprefix("[")


def _installation(session: Session) -> str:
    return session.get_one(ServiceMark, _MARK_KEY).installation or ""


def _way(session: Session, datastore: str) -> VsphereHome | None:
    """The way to a datastore's vCenter, its mark our installation's; None where it isn't declared any more."""
    declared = session.get(Datastore, datastore)
    if declared is None or declared.kind is not DatastoreKind.VSPHERE:
        return None
    return VsphereHome(
        vcenter=account_of(session.get_one(Vcenter, declared.vcenter)).reference,
        datastore=declared.vsphere_name or declared.name,
        uuid="",
        mark=_installation(session),
    )


def machine_of(replica: Replica, terms: ReplicaTerms | None) -> ReplicaMachine | None:
    """What a replica in a vCenter is made of."""
    if replica.machine is None:
        return None
    sizes = {disk.key: disk.size_bytes for disk in replica.original_disks}
    disks = tuple(disk.model_copy(update={"size_bytes": sizes.get(disk.key)}) for disk in replica.disks)
    networks = terms.networks if terms is not None else {}
    return ReplicaMachine(hardware=replica.machine, networks=networks, disks=disks)
