"""The first steps of a run: scan what its patterns may need, plan, open a task per disk; and begin again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import InventoryScanResult, TaskFailure
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, RepositoryReference, VmIdentity
from scheduler.planning.candidates import Candidate
from scheduler.planning.matching import needed_vcenters, needs_datastores
from scheduler.planning.replicas import ReplicaTerms
from scheduler.planning.selection import Plan, PlannedVm, Unplanned, plan
from scheduler.replication.beginning import (
    begin_again,
    begin_failback,
    open_vm_run,
    with_replicas,
    without_replicas,
)
from scheduler.replication.opening import open_replica
from scheduler.replication.places import is_in_vcenter
from scheduler.runs import tasks
from scheduler.runs.attempts import has_lost_its_vcenter, renew
from scheduler.runs.completion import settle_run
from scheduler.runs.copying import begin_copies, plan_copies
from scheduler.runs.freezing import freeze, place_of
from scheduler.runs.journal import Journal
from scheduler.runs.opening import Opened, open_disks
from scheduler.runs.scans import FRESH_S, failure_of, is_pending, want_scan
from scheduler.runs.standbys import without_standbys
from scheduler.state.asking import new_id
from scheduler.state.models import (
    Datastore,
    DatastoreKind,
    DiskTask,
    DiskTaskState,
    LedgerTask,
    Replica,
    Repository,
    Run,
    RunState,
    RunTrigger,
    Vcenter,
    Vm,
    VmRun,
    VmRunState,
    WorkState,
)
from scheduler.state.scanning import catalogued_candidates

logger = logging.getLogger(__name__)


def begin_run(journal: Journal, run: Run) -> None:
    """REQUESTED -> SCANNING, or as far as is possible without scanning. VMs that failed before begin again."""
    run.state = RunState.SCANNING
    run.started_at = run.started_at or journal.now
    if run.cancel_requested:
        run.state, run.ended_at, run.reason = RunState.CANCELLED, journal.now, "cancelled before it began"
        return
    if run.failback_of is not None:
        begin_failback(journal, run)
        return
    if run.replica is not None:
        begin_again(journal, run)
    else:
        repository = journal.session.get(Repository, run.repository)
        if repository is None:
            run.state, run.ended_at = RunState.FAILED, journal.now
            run.reason = f"repository {run.repository!r} is not declared any more"
            return
        if run.copy_from is not None:
            begin_copies(journal, run, run.copy_from)
            return
        _begin_again(journal, run, tasks.reference(repository, run.repository))
    declared = journal.session.scalars(select(Vm.name))
    if needs_datastores(run.vms, run.criteria, declared):
        folders = select(Datastore.name).where(Datastore.kind == DatastoreKind.DIRECTORY).order_by(Datastore.name)
        machines = run.replica is not None and is_in_vcenter(journal.session, run.replica.datastore)
        for datastore in journal.session.scalars(folders):
            journal.open(tasks.scan_task(run, datastore, journal.now, machines=machines))
    # Who starts a run by hand may just have made the VM.
    run.scanned_after = journal.now if run.trigger is RunTrigger.MANUAL else journal.now - FRESH_S
    for vcenter in vcenters_of(journal.session, run):
        want_scan(journal, vcenter, since=run.scanned_after)
    plan_if_scanned(journal, run)


def vcenters_of(session: Session, run: Run) -> tuple[str, ...]:
    """The declared vCenters that a run's VMs may be found in."""
    if run.copy_from is not None:
        return ()
    vcenters = session.scalars(select(Vcenter.name).order_by(Vcenter.name)).all()
    return needed_vcenters(run.vms, run.criteria, session.scalars(select(Vm.name)), vcenters)


def plan_if_scanned(journal: Journal, run: Run) -> None:
    """SCANNING -> RUNNING, once every scan has an outcome."""
    session = journal.session
    session.flush()
    if run.copy_from is not None:
        plan_copies(journal, run)
        return
    scans = session.scalars(
        select(LedgerTask).where(LedgerTask.run_id == run.id, LedgerTask.kind == TaskKind.INVENTORY_SCAN)
    ).all()
    if any(not scan.state.final for scan in scans):
        return
    if run.cancel_requested:
        _end_unplanned(journal, run, scans, RunState.CANCELLED, "cancelled before it was planned")
        return
    vcenters = vcenters_of(session, run)
    pending = [vcenter for vcenter in vcenters if is_pending(session, run, vcenter)]
    for vcenter in pending:
        want_scan(journal, vcenter, since=run.scanned_after or 0.0)  # it may have been declared since the run began
    if pending:
        return
    repository = session.get(Repository, run.repository)
    if repository is None and run.replica is None:
        reason = f"repository {run.repository!r} is not declared any more"
        _end_unplanned(journal, run, scans, RunState.FAILED, reason)
        return
    known = [*_declared_vms(session.scalars(select(Vm))), *_scanned_vms(scans)]
    unread = {vcenter: failure for vcenter in vcenters if (failure := failure_of(session, vcenter)) is not None}
    read = [vcenter for vcenter in vcenters if vcenter not in unread]
    candidates = [Candidate.of_inventory(vm) for vm in known] + catalogued_candidates(session, read)
    apart = without_replicas if run.replica is not None else without_standbys
    candidates = apart(session, run, candidates)
    planned = plan(run.vms, run.criteria, candidates)
    replicas: dict[str, Replica] = {}
    if run.replica is not None:
        planned, replicas = with_replicas(journal, planned, run.replica, run.job, _scanned_vms(scans))
    reference = tasks.reference(repository, run.repository) if repository is not None else None
    missing = (*_unscanned(scans, run.replica), *_unread(unread), *planned.unplanned)
    _record_plan(journal, run, Plan(planned.vms, missing), reference, replicas)
    for scan in scans:
        journal.close(scan)
    run.state = RunState.RUNNING
    logger.info(
        "run %s of job %s: %d VMs, %d can't be had", run.id, run.job, len(planned.vms), len(planned.unplanned)
    )
    settle_run(journal, run)


def _end_unplanned(journal: Journal, run: Run, scans: Iterable[LedgerTask], state: RunState, reason: str) -> None:
    """End a run without a plan; one whose VMs a retry has begun again ends with the last of them."""
    for scan in scans:
        journal.close(scan)
    if journal.session.scalars(select(VmRun.id).where(VmRun.run_id == run.id).limit(1)).first() is not None:
        run.state = RunState.RUNNING
        settle_run(journal, run)
    else:
        run.state, run.ended_at, run.reason = state, journal.now, reason


def _begin_again(journal: Journal, run: Run, repository: RepositoryReference) -> None:
    """Give VMs that failed or were cancelled in an earlier attempt a new one, with a new name in the repository."""
    session = journal.session
    # What could not be planned then may be possible now: the plan is made anew, and adds what it finds. One that
    # was planned stays, frozen or not: the names of its tasks must not be given again.
    session.execute(delete(VmRun).where(VmRun.run_id == run.id, VmRun.repository_run.is_(None)))
    again = (VmRunState.FAILED, VmRunState.CANCELLED)
    for vm_run in session.scalars(select(VmRun).where(VmRun.run_id == run.id, VmRun.state.in_(again))).all():
        if has_lost_its_vcenter(session, vm_run):
            continue
        renew(journal, vm_run)
        vm_run.state = VmRunState.RUNNING
        if vm_run.place is not None:
            freeze(journal, run, vm_run, vm_run.place)
            continue
        disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id).order_by(DiskTask.id)).all()
        for number, disk in enumerate(disks):
            # Results and checkpoints are bound to the former name, which a tombstone has taken.
            disk.state = DiskTaskState.QUEUED
            disk.tries = 1
            disk.result = disk.failure = disk.checkpoint = disk.ended_at = disk.retry_at = None
            task = tasks.backup_task(run, vm_run, disk, repository, journal.now, configuration=number == 0)
            journal.open(task)


def _record_plan(
    journal: Journal,
    run: Run,
    planned: Plan,
    repository: RepositoryReference | None,
    replicas: Mapping[str, Replica],
) -> None:
    session = journal.session
    present = session.scalars(select(VmRun).where(VmRun.run_id == run.id)).all()
    known = {vm_run.vm_id: vm_run for vm_run in present}
    number = max((int(vm_run.id.rpartition(".")[2]) for vm_run in present), default=0)
    for vm in planned.vms:
        former = known.get(vm.identity.vm_id)
        if former is not None and former.state.final and has_lost_its_vcenter(session, former):
            _move_to(journal, run, former, vm)
        if former is None:
            number += 1
            if run.replica is not None:
                replica = replicas[vm.identity.vm_id]
                open_vm_run(journal, run, run.replica, vm, f"{run.id}.{number}", replica=replica)
            elif repository is not None:
                _open_vm(journal, run, vm, f"{run.id}.{number}", repository)
    of_plan = {vm.identity.vm_id for vm in planned.vms}
    by_name = {vm_run.name: vm_run for vm_run in present}
    for missing in planned.unplanned:
        former = known.get(missing.vm_id) if missing.vm_id is not None else by_name.get(missing.name)
        if former is not None and former.vm_id not in of_plan:  # otherwise another VM with its id
            if former.state is VmRunState.FAILED:
                former.reason = missing.reason
            continue
        number += 1
        vm_run = VmRun(
            id=f"{run.id}.{number}",
            run_id=run.id,
            vm_id=missing.vm_id,
            name=missing.name,
            state=VmRunState.FAILED,
            reason=missing.reason,
            started_at=journal.now,
            ended_at=journal.now,
        )
        session.add(vm_run)


def _move_to(journal: Journal, run: Run, vm_run: VmRun, vm: PlannedVm) -> None:
    """Begin again with a VM that another vCenter has by now, or the same one by another name."""
    place = place_of(journal, vm)
    if place is None or vm_run.state is VmRunState.SUCCEEDED:
        return
    renew(journal, vm_run)
    vm_run.place = place
    if vm_run.replica_id is not None:
        open_replica(journal, run, vm_run)
    else:
        freeze(journal, run, vm_run, place)


def _open_vm(journal: Journal, run: Run, vm: PlannedVm, vm_run_id: str, repository: RepositoryReference) -> None:
    vm_run = VmRun(
        id=vm_run_id,
        run_id=run.id,
        vm_id=vm.identity.vm_id,
        name=vm.identity.name,
        state=VmRunState.RUNNING,
        attempt=1,
        repository_run=new_id(journal.now),
        configuration=vm.configuration,
        place=place_of(journal, vm),
        warning=vm.warning,
        started_at=journal.now,
    )
    journal.session.add(vm_run)
    if vm_run.place is not None:
        freeze(journal, run, vm_run, vm_run.place)
        return
    disks = [Opened(key=disk.key, address=disk.address, size_bytes=disk.size_bytes) for disk in vm.disks]
    open_disks(journal, run, vm_run, disks, repository)


def _declared_vms(vms: Iterable[Vm]) -> list[InventoryVm]:
    return [
        InventoryVm(
            identity=VmIdentity.of_name(vm.name),
            disks=tuple(DiskIdentity(key=disk.key, address=DiskAddress(nbd_uri=disk.nbd_uri)) for disk in vm.disks),
        )
        for vm in vms
    ]


def _scanned_vms(scans: Sequence[LedgerTask]) -> list[InventoryVm]:
    return [vm for scan in scans if isinstance(scan.result, InventoryScanResult) for vm in scan.result.vms]


def _unscanned(scans: Sequence[LedgerTask], terms: ReplicaTerms | None) -> list[Unplanned]:
    unknown = [scan.title.rpartition(" ")[2] for scan in scans if scan.state is not WorkState.SUCCEEDED]
    failures = {scan.title.rpartition(" ")[2]: scan.failure for scan in scans}
    return [
        Unplanned(f"datastore {datastore}", f"its VMs are not known: {failures[datastore]}")
        for datastore in unknown
        if terms is None or not terms.does_without(datastore)
    ]


def _unread(failures: Mapping[str, TaskFailure]) -> list[Unplanned]:
    return [
        Unplanned(f"vCenter {vcenter}", f"its VMs are not known: {failure}")
        for vcenter, failure in failures.items()
    ]
