"""The first steps of a VM run that replicates: which replica, whether it can be written; and begin again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaPlace, ReplicaTarget
from proxy_worker.contract.subjects import DiskIdentity, InventoryVm, VmIdentity
from scheduler.planning.candidates import Candidate
from scheduler.planning.replicas import PlannedReplica, ReplicaTerms, by_place, place_of, planned_replica
from scheduler.planning.selection import Plan, PlannedVm, Unplanned
from scheduler.replication import tasks
from scheduler.replication.opening import open_replica
from scheduler.replication.operating import active_operations
from scheduler.replication.places import is_in_vcenter, original_targets
from scheduler.replication.targets import targets_of
from scheduler.runs.attempts import has_lost_its_vcenter, renew
from scheduler.runs.completion import settle_run
from scheduler.runs.freezing import place_of as place_in_vcenter
from scheduler.runs.journal import Journal
from scheduler.state.asking import new_id
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Replica,
    ReplicaOperation,
    ReplicaPoint,
    ReplicaState,
    Run,
    RunState,
    VmRun,
    VmRunState,
)


def without_replicas(session: Session, run: Run, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The VMs that a job may replicate: its own replicas, which may match its patterns, are none of them."""
    replicas = session.scalars(select(Replica).where(Replica.job == run.job)).all()
    own = {replica.place for replica in replicas}
    in_vcenters = {replica.uuid for replica in replicas if replica.machine is not None}
    return [
        vm for vm in candidates if place_of(vm.configuration) not in own and vm.identity.vm_id not in in_vcenters
    ]


def with_replicas(
    journal: Journal, planned: Plan, terms: ReplicaTerms, job: str, there: Iterable[InventoryVm]
) -> tuple[Plan, dict[str, Replica]]:
    """The same plan without VMs that can't have a replica, or whose replica can't be written now, by name.

    With it come the job's replicas by the ids of their VMs, in the database as they are to be.
    """
    session = journal.session
    there = tuple(there)
    in_vcenter = is_in_vcenter(session, terms.datastore)
    machines = {vm.identity.vm_id: vm.machine for vm in there if in_vcenter}
    rows = session.scalars(select(Replica).order_by(Replica.created_at, Replica.id)).all()
    replicas = {replica.vm_id: replica for replica in rows if replica.job == job}
    holders = {replica.place: replica for replica in reversed(rows)}
    operations = active_operations(session)
    at_target = by_place(there, terms.datastore)
    vms: list[PlannedVm] = []
    unplanned = list(planned.unplanned)
    moved = False
    for vm in planned.vms:
        known = replicas.get(vm.identity.vm_id)
        made = planned_replica(vm, terms, at_target, _as_it_is(known) if known is not None else None)
        refusal = made if isinstance(made, str) else _refusal(known, made, holders, operations)
        machine = machines.get(vm.identity.vm_id)
        if in_vcenter and vm.vcenter is not None:
            machine = known.machine or "" if known is not None else ""  # its vCenter is asked before it is opened
        if in_vcenter and machine is None:
            refusal = refusal or "what it is made of isn't known: upgrade the proxies that have its datastore"
        if isinstance(made, str) or refusal is not None:
            unplanned.append(Unplanned(vm.identity.name, refusal or "", vm.identity.vm_id))
            continue
        vms.append(vm)
        replica = known or _new(journal, vm, job)
        if known is not None and known.place != made.place:
            if holders.get(known.place) is known:
                del holders[known.place]
            known.state, known.changed_at, moved = ReplicaState.NEW, journal.now, True
        _describe(replica, vm, made)
        replica.machine = machine
        holders[made.place] = replicas[vm.identity.vm_id] = replica
    session.flush()
    if moved:  # what lies in their former places stays there
        new = select(Replica.id).where(Replica.job == job, Replica.state == ReplicaState.NEW)
        session.execute(delete(ReplicaPoint).where(ReplicaPoint.replica_id.in_(new)))
    return replace(planned, vms=tuple(vms), unplanned=tuple(unplanned)), replicas


def open_vm_run(
    journal: Journal, run: Run, terms: ReplicaTerms, vm: PlannedVm, vm_run_id: str, *, replica: Replica
) -> None:
    """Begin a VM run: whether its replica can be written is found out first."""
    session = journal.session
    vm_run = _vm_run(journal, run, vm.identity, vm_run_id, replica)
    vm_run.configuration, vm_run.warning = vm.configuration, vm.warning
    vm_run.place = place_in_vcenter(journal, vm)
    if vm_run.place is None:  # of a vCenter's VM, which disks there are is known once it is frozen
        targets = targets_of(session, terms, replica)
        for disk in vm.disks:
            _add_disk(session, vm_run, disk, targets[disk.key])
    open_replica(journal, run, vm_run)


def begin_failback(journal: Journal, run: Run) -> None:
    """REQUESTED -> RUNNING: a replica's disks are brought back to where the original's are."""
    session = journal.session
    run.state, run.started_at = RunState.RUNNING, run.started_at or journal.now
    begin_again(journal, run)
    if session.scalars(select(VmRun.id).where(VmRun.run_id == run.id)).first() is not None:
        settle_run(journal, run)
        return
    replica = session.get_one(Replica, run.failback_of)
    vm_run = _vm_run(journal, run, tasks.original_of(replica), f"{run.id}.1", replica)
    targets = original_targets(replica)
    for disk in replica.disks:
        if disk.key in targets:
            _add_disk(session, vm_run, disk, targets[disk.key])
    open_replica(journal, run, vm_run)


def begin_again(journal: Journal, run: Run) -> None:
    """Give VMs that failed or were cancelled in an earlier attempt a new one."""
    session = journal.session
    # One that was opened stays, frozen or not: the names of its tasks must not be given again.
    session.execute(delete(VmRun).where(VmRun.run_id == run.id, VmRun.repository_run.is_(None)))
    again = (VmRunState.FAILED, VmRunState.CANCELLED)
    operations = active_operations(session)
    for vm_run in session.scalars(select(VmRun).where(VmRun.run_id == run.id, VmRun.state.in_(again))).all():
        if has_lost_its_vcenter(session, vm_run):
            continue
        replica = session.get(Replica, vm_run.replica_id)
        refusal = _state_refusal(replica, operations) if run.failback_of is None else None
        if replica is None or refusal is not None:
            vm_run.reason = refusal or "its replica is not known any more"
            continue
        renew(journal, vm_run)
        for disk in session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)).all():
            disk.state, disk.tries = DiskTaskState.WAITING, 1
            disk.result = disk.failure = disk.checkpoint = disk.ended_at = disk.retry_at = None
        open_replica(journal, run, vm_run)


def _refusal(
    known: Replica | None,
    made: PlannedReplica,
    holders: Mapping[ReplicaPlace, Replica],
    operations: Mapping[str, ReplicaOperation],
) -> str | None:
    holder = holders.get(made.place)
    if holder is not None and holder is not known:
        return (
            f"folder {made.place.folder} of datastore {made.place.datastore} is that of the replica of "
            f"{holder.vm_name} ({holder.vm_id}) by job {holder.job}: `mapped`, or another `suffix` of the job, "
            f"gives it one of its own, and moves no replica that there is"
        )
    return _state_refusal(known, operations)


def _state_refusal(replica: Replica | None, operations: Mapping[str, ReplicaOperation]) -> str | None:
    """Why a job's run must not write a replica as it is now."""
    if replica is None:
        return None
    operation = operations.get(replica.id)
    if operation is not None and not (operation.run_id is not None and operation.step == 0):
        return f"{operation.kind.value} of its replica {replica.name} is under way"
    if replica.state is ReplicaState.FAILED_OVER:
        back = f", bring it back (`scheduler replica failback {replica.name}`)" if replica.can_fail_back else ""
        return (
            f"its replica {replica.name} is failed over, and a run would write over it: undo that{back} "
            f"or make it permanent"
        )
    if replica.state is ReplicaState.FAILED_BACK:
        return f"its replica {replica.name} is failed back: `scheduler replica commit {replica.name}` ends that"
    if replica.state is ReplicaState.PERMANENT:
        return f"its replica {replica.name} was made permanent: exclude the VM from the job"
    return None


def _as_it_is(replica: Replica) -> PlannedReplica:
    return PlannedReplica(
        name=replica.name,
        place=replica.place,
        mapped=replica.mapped,
        disks=replica.disks,
        original_place=replica.original_place,
        replaced_uuid=replica.uuid,
    )


def _new(journal: Journal, vm: PlannedVm, job: str) -> Replica:
    replica = Replica(
        id=new_id(journal.now),
        job=job,
        vm_id=vm.identity.vm_id,
        state=ReplicaState.NEW,
        created_at=journal.now,
        changed_at=journal.now,
    )
    journal.session.add(replica)
    return replica


def _describe(replica: Replica, vm: PlannedVm, made: PlannedReplica) -> None:
    replica.vm_name, replica.name = vm.identity.name, made.name
    replica.place, replica.mapped, replica.uuid = made.place, made.mapped, made.replaced_uuid
    replica.disks, replica.original_disks = made.disks, vm.disks
    replica.original_place = made.original_place


def _vm_run(journal: Journal, run: Run, vm: VmIdentity, vm_run_id: str, replica: Replica) -> VmRun:
    vm_run = VmRun(
        id=vm_run_id,
        run_id=run.id,
        vm_id=vm.vm_id,
        name=vm.name,
        state=VmRunState.OPENING,
        attempt=1,
        repository_run=new_id(journal.now),
        replica_id=replica.id,
        started_at=journal.now,
    )
    journal.session.add(vm_run)
    return vm_run


def _add_disk(session: Session, vm_run: VmRun, disk: DiskIdentity, target: ReplicaTarget) -> None:
    row = DiskTask(
        id=f"{vm_run.id}.{disk.key}",
        vm_run_id=vm_run.id,
        run_id=vm_run.run_id,
        disk_key=disk.key,
        address=disk.address,
        size_bytes=disk.size_bytes,
        target=target,
        state=DiskTaskState.WAITING,
        tries=1,
        attempts=0,
    )
    session.add(row)
