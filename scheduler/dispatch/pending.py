"""Journalled tasks as the policy and the ledger want them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy_worker.contract.copying import CopyPlan, DiskCopy
from proxy_worker.contract.disks import DiskBackup, DiskRestore
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.replication import (
    DiskReceive,
    DiskReplicate,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    ReplicaTarget,
)
from proxy_worker.contract.selection import replica_in_vcenter, traits_of
from proxy_worker.contract.specification import (
    InventoryScan,
    RepositoryCheck,
    RepositoryCommit,
    RepositoryProve,
    StorageSnapshotCreate,
    StorageSnapshotList,
    StorageSnapshotRemove,
    TaskBody,
    TaskSpecification,
    VmCreate,
)
from proxy_worker.contract.using import PointBoot, PointServe
from proxy_worker.contract.versions import SINCE
from proxy_worker.ledger import NewTask
from scheduler.dispatch.fleet import PendingTask, Placement
from scheduler.state.models import LedgerTask

OfReplication = (
    DiskReceive | DiskReplicate | ReplicaOpen | ReplicaPoint | ReplicaRemovePoint | ReplicaRevert | ReplicaMark
)


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that the journal holds open, with all that dispatching it takes."""

    new: NewTask
    body: TaskBody
    placement: Placement
    job: str
    urgency: int
    created_at: float
    vm_run_id: str | None
    partner: str | None = None
    """Of a disk that is replicated: the task that receives it."""

    @classmethod
    def of(cls, row: LedgerTask) -> OpenTask:
        """The task of a row of the journal."""
        placement = placement_of(row.body, row.pinned_proxy)
        return cls(
            new=NewTask(
                task_id=row.id, kind=row.kind, title=row.title, caps=placement.caps, checkpoint=row.checkpoint
            ),
            body=row.body,
            placement=placement,
            job=row.job,
            urgency=row.priority,
            created_at=row.created_at,
            vm_run_id=row.vm_run_id,
            partner=row.partner_id,
        )

    def pending(self, *, vm_started: bool) -> PendingTask:
        """What the policy sees of it. A vCenter's disk is frozen by now, so that its VM has begun in any case."""
        return PendingTask(
            task_id=self.new.task_id,
            placement=self.placement,
            job=self.job,
            urgency=self.urgency,
            since=self.created_at,
            vm_started=vm_started or self.placement.vsphere is not None,
            vm=self.vm_run_id,
            work_bytes=_work_bytes(self.body),
        )

    def specification(
        self,
        *,
        epoch: int,
        number: int,
        lane: str,
        expires_at: float,
        mode: TransportMode | None,
        contract_version: int,
        body: TaskBody | None = None,
    ) -> TaskSpecification:
        """What is signed for dispatch `number`; with `mode`, the transport mode that its proxy has to use.

        `body` stands for the task's own, where it says more than was known when that was written.
        """
        body = body if body is not None else self.body
        if mode is not None and isinstance(body, DiskBackup | DiskReplicate):
            body = body.model_copy(update={"transport": body.transport.model_copy(update={"mode": mode})})
        return TaskSpecification(
            epoch=epoch,
            task_id=self.new.task_id,
            dispatch_number=number,
            audience=lane,
            expires_at=expires_at,
            contract_version=contract_version if contract_version > 1 else None,
            body=body,
        )


def _work_bytes(body: TaskBody) -> int:
    """How much of a disk there is to read, as far as that is known."""
    if isinstance(body, DiskCopy):
        return body.size_bytes or 0
    if not isinstance(body, DiskBackup | DiskReplicate):
        return 0
    if body.changed_areas is not None:
        return sum(area.length for area in body.changed_areas)
    return body.disk.size_bytes or 0


def placement_of(body: TaskBody, pinned_proxy: str | None) -> Placement:
    """What decides where a task can go."""
    if isinstance(body, InventoryScan | StorageSnapshotCreate | StorageSnapshotRemove | StorageSnapshotList):
        return Placement(body.kind, datastore=body.datastore, pinned_proxy=pinned_proxy)
    if isinstance(body, OfReplication):
        return _placement_of_replication(body)
    if isinstance(body, DiskBackup):
        return replace(_placement_of_source(body), repository=body.repository.name, pinned_proxy=pinned_proxy)
    if isinstance(body, VmCreate | DiskRestore):
        return _placement_of_restore(body, pinned_proxy)
    if isinstance(body, CopyPlan | DiskCopy):
        return Placement(
            body.kind,
            repository=body.repository.name,
            needs_read_key=isinstance(body, DiskCopy) and body.original.needs_read_key,
            pinned_proxy=pinned_proxy,
            source=body.source.name,
        )
    needs_read_key = (
        isinstance(body, PointBoot | PointServe)
        or (isinstance(body, RepositoryCheck) and not body.scrub_only)
        or (isinstance(body, RepositoryProve) and body.samples)
    )
    copies = isinstance(body, RepositoryCommit) and body.copy_of is not None
    return Placement(
        body.kind,
        repository=body.repository.name,
        needs_read_key=needs_read_key,
        pinned_proxy=pinned_proxy,
        since=SINCE[TaskKind.DISK_COPY] if copies else 1,
    )


def _placement_of_source(body: DiskBackup | DiskReplicate) -> Placement:
    """Where a disk can be read; one that is frozen in a storage snapshot only can't be had in any other way."""
    address, transport = body.disk.address, body.transport
    replica = body.source if isinstance(body, DiskReplicate) else None
    if replica is not None and replica.vsphere is not None:
        traits = replica_in_vcenter(replica.datastore, replica.vsphere.vcenter.credential)
        return Placement(body.kind, datastore=replica.datastore, vsphere=traits)
    kept = address.storage_snapshot is not None
    return Placement(
        body.kind,
        datastore=address.datastore,
        preference=str(TransportMode.STORAGE_SNAPSHOT if kept else transport.mode),
        failover_to_network=transport.failover_to_network and not kept,
        vsphere=traits_of(address, body.disk.size_bytes) if address.vsphere is not None else None,
    )


def _placement_of_restore(body: VmCreate | DiskRestore, pinned_proxy: str | None) -> Placement:
    datastore = restores_to = None
    if isinstance(body, VmCreate):
        restores_to = body.vcenter.credential
    elif body.target is not None and body.target.vsphere is not None:
        datastore, restores_to = body.target.datastore, body.target.vsphere.vcenter.credential
    return Placement(
        body.kind,
        repository=body.repository.name,
        needs_read_key=True,
        datastore=datastore,
        pinned_proxy=pinned_proxy,
        restores_to=restores_to,
    )


def _placement_of_replication(body: OfReplication) -> Placement:
    if isinstance(body, DiskReceive):
        return _placement_of_target(body.target)
    if not isinstance(body, DiskReplicate):
        return _placement_at(body.kind, body.replica)
    if body.target is None:
        return _placement_of_source(body)
    return replace(_placement_of_source(body), target=_placement_of_target(body.target), back=body.target.back)


def _placement_of_target(target: ReplicaTarget) -> Placement:
    """Where a replica's disk can be written; one that begins with a restore point has to be read from there."""
    seed = target.seed
    at = _placement_at(TaskKind.DISK_RECEIVE, target.place)
    repository = seed.repository.name if seed is not None else None
    return replace(at, repository=repository, needs_read_key=seed is not None, back=target.back)


def _placement_at(kind: TaskKind, place: ReplicaPlace) -> Placement:
    """Where a replica can be reached: by its datastore's folder, or by its vCenter."""
    home = place.vsphere
    return Placement(
        kind,
        datastore=place.datastore if home is None else None,
        restores_to=home.vcenter.credential if home is not None else None,
    )
