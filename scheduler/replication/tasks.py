"""The tasks that replications and operations consist of, as rows of the journal."""

from __future__ import annotations

from typing import Final, cast

from proxy_worker.contract.names import AUTOMATIC, TaskKind, TransportMode
from proxy_worker.contract.replication import (
    DiskReceive,
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    ReplicaTarget,
)
from proxy_worker.contract.specification import TaskBody
from proxy_worker.contract.subjects import DiskIdentity, TransportPreference, VmIdentity
from scheduler.dispatch.fleet import Urgency
from scheduler.dispatch.pairs import UNKNOWN
from scheduler.replication.places import reached, reached_original
from scheduler.state.models import DiskTask, LedgerTask, Priority, Replica, ReplicaOperation, Run, VmRun

BEFORE: Final = "before-"
"""What names of points begin with that keep an original as it was."""
_URGENCY: Final = {Priority.HIGH: Urgency.HIGH, Priority.REGULAR: Urgency.REGULAR}


def original_of(replica: Replica) -> VmIdentity:
    """The VM that a replica stands for."""
    return VmIdentity(vm_id=replica.vm_id, name=replica.vm_name)


def open_task(run: Run, vm_run: VmRun, body: ReplicaOpen, now: float) -> LedgerTask:
    """Find out whether a replica, or its original, can be written."""
    return _of_vm_run(run, vm_run, body, "open", now)


def point_task(run: Run, vm_run: VmRun, body: ReplicaPoint, now: float) -> LedgerTask:
    """Keep a replica as it is at the end of a VM run, or its original as it is before anything is brought back."""
    return _of_vm_run(run, vm_run, body, "point", now)


def original_point(replica: Replica, vm_run: VmRun) -> ReplicaPoint:
    """The original as it is before a failback writes it."""
    return ReplicaPoint(
        replica=reached_original(replica),
        vm=original_of(replica),
        run=before_name(vm_run),
        disks=replica.original_disks,
    )


def replica_point(replica: Replica, name: str, run: Run | None) -> ReplicaPoint:
    """A restore point of a replica; with the run that made it, its VMX is made anew from the original's."""
    renamed = run is not None and not replica.mapped
    return ReplicaPoint(
        replica=reached(replica),
        vm=original_of(replica),
        run=name,
        disks=replica.disks,
        name=replica.name[:80] if renamed else None,
        uuid=replica.uuid if renamed else None,
        networks=run.replica.networks if run is not None and run.replica is not None and renamed else {},
    )


def before_name(vm_run: VmRun) -> str:
    """What the original is kept as before a failback writes it."""
    return f"{BEFORE}{vm_run.repository_run}"


def pair_tasks(
    run: Run, vm_run: VmRun, disk: DiskTask, now: float, *, configuration: bool, source: ReplicaPlace | None = None
) -> tuple[LedgerTask, LedgerTask]:
    """The task that receives a disk, and the one that sends it; `source`: the replica in a vCenter that has it."""
    target = cast("ReplicaTarget", disk.target)  # every disk of a replication has one
    streams = run.replica.streams if run.replica is not None else DiskReceive.model_fields["streams"].default
    name = f"{disk.id}.{vm_run.attempt}.{disk.tries}"
    shared = {"job": run.job, "priority": _URGENCY[run.priority], "created_at": now, "run_id": run.id}
    shared |= {"vm_run_id": vm_run.id, "disk_task_id": disk.id}
    receive = DiskReceive(
        job=run.job,
        run=vm_run.repository_run or "",
        session=UNKNOWN,
        source=UNKNOWN,
        target=target,
        streams=streams,
    )
    send = DiskReplicate(
        job=run.job,
        run=vm_run.repository_run or "",
        session=UNKNOWN,
        vm=VmIdentity(vm_id=vm_run.vm_id or "", name=vm_run.name),
        disk=DiskIdentity(key=disk.disk_key, address=disk.address, size_bytes=disk.size_bytes),
        source=source,
        transport=TransportPreference(
            mode=AUTOMATIC if run.transport_mode == AUTOMATIC else TransportMode(run.transport_mode),
            failover_to_network=run.failover_to_network,
        ),
        target=target,
        level=run.level,
        streams=streams,
        changed_areas=disk.changed_areas if disk.parent is not None else None,
        areas_in_use=disk.changed_areas if disk.parent is None else None,
        parent=disk.parent,
        full_read_reason=disk.full_read_reason,
        configuration=vm_run.configuration if configuration else (),
    )
    first = LedgerTask(
        id=f"{name}.receive",
        kind=TaskKind.DISK_RECEIVE,
        title=f"{TaskKind.DISK_RECEIVE} {vm_run.name} {disk.disk_key}",
        body=receive,
        **shared,
    )
    second = LedgerTask(
        id=name,
        kind=TaskKind.DISK_REPLICATE,
        title=f"{TaskKind.DISK_REPLICATE} {vm_run.name} {disk.disk_key}",
        body=send,
        partner_id=first.id,
        **shared,
    )
    return first, second


def remove_task(replica: Replica, place: ReplicaPlace, point: str, now: float) -> LedgerTask:
    """Remove a restore point that is not kept any more."""
    body = ReplicaRemovePoint(replica=place, run=point)
    return LedgerTask(
        id=f"{replica.id}.remove.{point}.{now:.0f}.1",
        kind=body.kind,
        title=f"{body.kind} {replica.name} {point}",
        job=replica.job,
        priority=Urgency.UPKEEP,
        body=body,
        created_at=now,
        replica_id=replica.id,
    )


def operation_task(operation: ReplicaOperation, replica: Replica, body: TaskBody, now: float) -> LedgerTask:
    """A step of an operation."""
    part = "undo" if operation.undoing else "step"
    return LedgerTask(
        id=f"{operation.id}.{part}{operation.step}.1",
        kind=body.kind,
        title=f"{body.kind} {replica.name}",
        job=f"replica {replica.name}",
        priority=Urgency.RESTORE,
        body=body,
        created_at=now,
        replica_id=replica.id,
        operation_id=operation.id,
    )


def revert(place: ReplicaPlace, point: str, condition: ReplicaCondition) -> ReplicaRevert:
    """Make what lies in `place` what it was at a restore point."""
    return ReplicaRevert(replica=place, run=point, condition=condition)


def mark(place: ReplicaPlace, condition: ReplicaCondition, point: str | None = None) -> ReplicaMark:
    """Note what a replica is, and what it runs from."""
    return ReplicaMark(replica=place, condition=condition, run=point)


def _of_vm_run(run: Run, vm_run: VmRun, body: ReplicaOpen | ReplicaPoint, part: str, now: float) -> LedgerTask:
    return LedgerTask(
        id=f"{vm_run.id}.{part}.{vm_run.attempt}.1",
        kind=body.kind,
        title=f"{body.kind} {vm_run.name} in {body.replica.datastore}",
        job=run.job,
        priority=Urgency.UPKEEP,
        body=body,
        created_at=now,
        run_id=run.id,
        vm_run_id=vm_run.id,
        replica_id=vm_run.replica_id,
    )
