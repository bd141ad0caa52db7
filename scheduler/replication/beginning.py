"""The first steps of a VM run that replicates: which replica, whether it can be written; and begin again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaOpen, ReplicaPlace, ReplicaSeed, ReplicaTarget
from proxy_worker.contract.specification import DiskIdentity, InventoryVm, RepositoryReference, VmIdentity
from scheduler.planning.candidates import Candidate
from scheduler.planning.replicas import PlannedReplica, ReplicaTerms, elsewhere, place_of, planned_replica
from scheduler.planning.selection import Plan, PlannedVm, Unplanned
from scheduler.replication import tasks
from scheduler.replication.operating import active_operation
from scheduler.runs.completion import end_vm_run, settle_run
from scheduler.runs.journal import Journal
from scheduler.state.asking import new_id
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Point,
    Replica,
    ReplicaPoint,
    ReplicaState,
    Repository,
    Run,
    RunState,
    VmRun,
    VmRunState,
)


def without_replicas(session: Session, run: Run, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The VMs that a job may replicate: its own replicas, which may match its patterns, are none of them."""
    own = {replica.place for replica in session.scalars(select(Replica).where(Replica.job == run.job))}
    return [vm for vm in candidates if place_of(vm.configuration) not in own]


def with_replicas(journal: Journal, planned: Plan, terms: ReplicaTerms, job: str, there: list[InventoryVm]) -> Plan:
    """The same plan without VMs that can't have a replica, or whose replica can't be written now, by name.

    The replicas of the others are in the database then, as they are to be.
    """
    vms: list[PlannedVm] = []
    unplanned = list(planned.unplanned)
    at_target = [vm for vm in there if (place := place_of(vm.configuration)) and place.datastore == terms.datastore]
    for vm in planned.vms:
        known = journal.session.scalars(
            select(Replica).where(Replica.job == job, Replica.vm_id == vm.identity.vm_id)
        ).first()
        made = planned_replica(vm, terms, at_target, known.disks if known is not None else ())
        refusal = made if isinstance(made, str) else _refusal(journal.session, known, made)
        if isinstance(made, str) or refusal is not None:
            unplanned.append(Unplanned(vm.identity.name, refusal or "", vm.identity.vm_id))
            continue
        vms.append(vm)
        _keep(journal, known, vm, made, job)
    return replace(planned, vms=tuple(vms), unplanned=tuple(unplanned))


def open_vm_run(journal: Journal, run: Run, terms: ReplicaTerms, vm: PlannedVm, vm_run_id: str) -> None:
    """Begin a VM run: whether its replica can be written is found out first."""
    session = journal.session
    replica = session.scalars(
        select(Replica).where(Replica.job == run.job, Replica.vm_id == vm.identity.vm_id)
    ).one()
    vm_run = _vm_run(journal, run, vm.identity, vm_run_id, replica)
    vm_run.configuration, vm_run.warning = vm.configuration, vm.warning
    targets = {disk.key: disk for disk in replica.disks}
    seeds = _seeds(session, terms, replica)
    for disk in vm.disks:
        target = ReplicaTarget(place=replica.place, disk=targets[disk.key], seed=seeds.get(disk.key))
        _add_disk(session, vm_run, disk, target)
    ask_whether_writable(journal, run, vm_run)


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
    targets = {disk.key: disk for disk in replica.original_disks}
    for disk in replica.disks:
        if disk.key in targets:
            _add_disk(session, vm_run, disk, ReplicaTarget(place=replica.original_place, disk=targets[disk.key]))
    ask_whether_writable(journal, run, vm_run)


def begin_again(journal: Journal, run: Run) -> None:
    """Give VMs that failed or were cancelled in an earlier attempt a new one."""
    session = journal.session
    without_disks = ~select(DiskTask.id).where(DiskTask.vm_run_id == VmRun.id).exists()
    session.execute(delete(VmRun).where(VmRun.run_id == run.id, without_disks))
    again = (VmRunState.FAILED, VmRunState.CANCELLED)
    for vm_run in session.scalars(select(VmRun).where(VmRun.run_id == run.id, VmRun.state.in_(again))).all():
        replica = session.get(Replica, vm_run.replica_id)
        refusal = _state_refusal(session, replica) if run.failback_of is None else None
        if replica is None or refusal is not None:
            vm_run.reason = refusal or "its replica is not known any more"
            continue
        vm_run.attempt += 1
        vm_run.repository_run = new_id(journal.now)
        vm_run.cancelled = False
        vm_run.reason = vm_run.warning = vm_run.ended_at = None
        for disk in session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)).all():
            disk.state, disk.tries = DiskTaskState.WAITING, 1
            disk.result = disk.failure = disk.checkpoint = disk.ended_at = disk.retry_at = None
        ask_whether_writable(journal, run, vm_run)


def place_written(run: Run, replica: Replica) -> ReplicaPlace:
    """What a run writes of a replica: the replica, or its original."""
    return replica.place if run.failback_of is None else replica.original_place


def ask_whether_writable(journal: Journal, run: Run, vm_run: VmRun) -> None:
    """-> OPENING."""
    replica = journal.session.get_one(Replica, vm_run.replica_id)
    back = run.failback_of is not None
    vm_run.state = VmRunState.OPENING
    place = place_written(run, replica)
    body = ReplicaOpen(replica=place, vm=tasks.original_of(replica), mapped=replica.mapped or back)
    journal.open(tasks.open_task(run, vm_run, body, journal.now))


def _refusal(session: Session, known: Replica | None, made: PlannedReplica) -> str | None:
    if known is None:
        taken = [one for one in session.scalars(select(Replica)) if one.place == made.place]
        if taken:
            return (
                f"folder {made.place.folder} of datastore {made.place.datastore} is that of the replica of "
                f"{taken[0].vm_name} by job {taken[0].job}"
            )
    return _state_refusal(session, known)


def _state_refusal(session: Session, replica: Replica | None) -> str | None:
    """Why a job's run must not write a replica as it is now."""
    if replica is None:
        return None
    operation = active_operation(session, replica.id)
    if operation is not None and not (operation.run_id is not None and operation.step == 0):
        return f"{operation.kind.value} of its replica {replica.name} is under way"
    if replica.state is ReplicaState.FAILED_OVER:
        return (
            f"its replica {replica.name} is failed over, and a run would write over it: undo that, bring it back "
            f"(`scheduler replica failback {replica.name}`) or make it permanent"
        )
    if replica.state is ReplicaState.FAILED_BACK:
        return f"its replica {replica.name} is failed back: `scheduler replica commit {replica.name}` ends that"
    if replica.state is ReplicaState.PERMANENT:
        return f"its replica {replica.name} was made permanent: exclude the VM from the job"
    return None


def _keep(journal: Journal, known: Replica | None, vm: PlannedVm, made: PlannedReplica, job: str) -> None:
    replica = known
    if replica is None:
        replica = Replica(
            id=new_id(journal.now), job=job, vm_id=vm.identity.vm_id, created_at=journal.now, changed_at=journal.now
        )
        journal.session.add(replica)
        replica.state = ReplicaState.NEW
    elif replica.place != made.place:  # the job says another one now: what lies in the former stays there
        for point in journal.session.scalars(select(ReplicaPoint).where(ReplicaPoint.replica_id == replica.id)):
            journal.session.delete(point)
        replica.state, replica.changed_at = ReplicaState.NEW, journal.now
    replica.vm_name, replica.name = vm.identity.name, made.name
    replica.place, replica.mapped, replica.uuid = made.place, made.mapped, made.replaced_uuid
    replica.disks, replica.original_disks = made.disks, vm.disks
    replica.original_place = made.original_place
    replica.returnable = not elsewhere(made.original_place, vm.disks)
    journal.session.flush()


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


def _seeds(session: Session, terms: ReplicaTerms, replica: Replica) -> dict[str, ReplicaSeed]:
    """What a new replica's disks begin with, by key: the newest restore point in the job's seed."""
    if terms.seed is None or replica.state is not ReplicaState.NEW or replica.mapped:
        return {}
    declared = session.get(Repository, terms.seed)
    of_vm = select(Point).where(Point.repository == terms.seed, Point.vm_id == replica.vm_id)
    newest = session.scalars(of_vm.order_by(Point.created_at.desc())).first()
    if declared is None or newest is None:
        return {}
    reference = RepositoryReference(name=declared.name, location=declared.location, credential=declared.credential)
    vm = tasks.original_of(replica)
    return {
        disk.key: ReplicaSeed(repository=reference, vm=vm, run=newest.point, disk_key=disk.key)
        for disk in newest.disks
    }


def fail_before_it_began(
    journal: Journal, vm_run: VmRun, reason: str, state: VmRunState = VmRunState.FAILED
) -> None:
    """End a VM run of which nothing was written."""
    for disk in journal.session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)):
        disk.state = DiskTaskState.CANCELLED
    end_vm_run(journal, vm_run, state, reason)
