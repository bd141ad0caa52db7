"""Steps that time and people cause: what was asked for begins, what is due is tried again, cancels go on."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure
from scheduler.replication import flow as replicas
from scheduler.replication.disks import queue_disk
from scheduler.replication.opening import cancel_opening
from scheduler.replication.tasks import BEFORE
from scheduler.restores import outcomes as restores
from scheduler.runs import tasks
from scheduler.runs.beginning import begin_run, plan_if_scanned
from scheduler.runs.completion import settle_vm_runs
from scheduler.runs.copy_tasks import copy_task
from scheduler.runs.freezing import cancel_freezing
from scheduler.runs.journal import Journal
from scheduler.runs.proving import linked_to, proof_is_due, prove_when_due
from scheduler.runs.retention import (
    apply_retention,
    collect_when_due,
    collection_is_due,
    collection_is_overdue,
    end_overdue_collections,
    retention_is_due,
)
from scheduler.runs.scanned import begin_scans
from scheduler.runs.waiting import DESCRIBE, SNAPSHOT
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Job,
    LedgerTask,
    Replica,
    Repository,
    Request,
    Restore,
    Run,
    RunState,
    VcenterScan,
    VcenterStep,
    VmRun,
    VmRunState,
    WorkState,
)

_ACTIVE = (RunState.SCANNING, RunState.RUNNING)
_STOPPED = (
    TaskKind.DISK_BACKUP,
    TaskKind.DISK_COPY,
    TaskKind.COPY_PLAN,
    TaskKind.DISK_RECEIVE,
    TaskKind.DISK_REPLICATE,
    TaskKind.INVENTORY_SCAN,
    TaskKind.REPLICA_OPEN,
)
"""What is stopped when its run is cancelled."""


def is_due(session: Session, now: float) -> bool:
    """Whether `advance` would find something; cheap, takes no write lock."""
    questions = (
        exists().where(Run.state == RunState.REQUESTED),
        exists().where(Restore.state == WorkState.REQUESTED),
        exists().where(Request.state == WorkState.REQUESTED),
        exists().where(_retry_is_due(now)),
        exists().where(LedgerTask.state == WorkState.WAITING, LedgerTask.retry_at <= now),
        exists().where(_cancel_is_owed()),
        exists().where(_wait_is_cancelled()),
        exists().where(_upkeep_wait_is_cancelled(), LedgerTask.retry_at > now),
        exists().where(_restore_cancel_is_owed()),
        exists().where(_freezing_is_cancelled()),
        exists().where(_describing_is_cancelled()),
        exists().where(_scanning_is_cancelled()),
        exists().where(VcenterScan.state == WorkState.REQUESTED),
        restores.due(now),
        replicas.due(),
        exists().where(retention_is_due()),
        exists().where(collection_is_due(now)),
        exists().where(collection_is_overdue(now)),
        exists().where(proof_is_due(now)),
    )
    return bool(session.scalar(select(or_(*questions))))


def advance(journal: Journal) -> None:
    """Take every step that is due at the journal's time."""
    session = journal.session
    for run in session.scalars(select(Run).where(Run.state == RunState.REQUESTED).order_by(Run.created_at)).all():
        begin_run(journal, run)
    apply_retention(journal)
    collect_when_due(journal)
    end_overdue_collections(journal)
    prove_when_due(journal)
    session.flush()
    _begin_restores(journal)
    _begin_requests(journal)
    begin_scans(journal)
    restores.advance(journal)
    replicas.advance(journal)
    _cancel(journal)
    _retry_disks(journal)
    _retry_upkeep(journal)


def unwanted(session: Session) -> set[str]:
    """The ids of commits and tombstones of cancelled runs, and of removals of replicas' points whose job is gone:
    they are let through, but not waited for without end. What an original was kept as is: no run removes it."""
    last_steps = (TaskKind.REPOSITORY_COMMIT, TaskKind.REPOSITORY_ABANDON, TaskKind.REPLICA_POINT)
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    of_runs = LedgerTask.kind.in_(last_steps), LedgerTask.run_id.in_(cancelled)
    left = select(Replica.id).where(Replica.job.not_in(select(Job.name)))
    of_no_job = (
        LedgerTask.kind == TaskKind.REPLICA_REMOVE_POINT,
        ~LedgerTask.id.contains(f".remove.{BEFORE}"),
        LedgerTask.replica_id.in_(left),
    )
    return {found for what in (of_runs, of_no_job) for found in session.scalars(select(LedgerTask.id).where(*what))}


def give_up(journal: Journal, task_id: str, reason: str) -> None:
    """End a task that no proxy could take for too long; a run goes on without the datastore of a scan."""
    row = journal.session.get(LedgerTask, task_id)
    if row is None or row.cancelling or row.state.final:
        return
    row.failure = TaskFailure(code="no-proxy", what=row.title, why=reason, exit_code=NotFoundError.exit_code)
    journal.cancel(row)


def replan(journal: Journal) -> None:
    """Plan runs whose scans had all ended when the scheduler did."""
    for run in journal.session.scalars(select(Run).where(Run.state == RunState.SCANNING)).all():
        plan_if_scanned(journal, run)


def _retry_is_due(now: float) -> ColumnElement[bool]:
    return and_(DiskTask.state == DiskTaskState.WAITING, DiskTask.retry_at <= now)


def _wait_is_cancelled() -> ColumnElement[bool]:
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    return and_(DiskTask.state == DiskTaskState.WAITING, DiskTask.run_id.in_(cancelled))


def _cancel_is_owed() -> ColumnElement[bool]:
    # A commit that has begun is let through: the work is done, and the restore point is whole or absent.
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    return and_(
        LedgerTask.state == WorkState.RUNNING,
        LedgerTask.cancelling.is_(False),
        LedgerTask.kind.in_(_STOPPED),
        LedgerTask.run_id.in_(cancelled),
    )


def _upkeep_wait_is_cancelled() -> ColumnElement[bool]:
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    waited_for = (
        TaskKind.REPOSITORY_COMMIT,
        TaskKind.INVENTORY_SCAN,
        TaskKind.COPY_PLAN,
        TaskKind.REPLICA_OPEN,
        TaskKind.REPLICA_POINT,
    )
    return and_(
        LedgerTask.state == WorkState.WAITING, LedgerTask.kind.in_(waited_for), LedgerTask.run_id.in_(cancelled)
    )


def _freezing_is_cancelled() -> ColumnElement[bool]:
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    told = exists().where(
        VcenterStep.subject == VmRun.repository_run, VcenterStep.kind == SNAPSHOT, VcenterStep.cancelling
    )
    return and_(VmRun.state == VmRunState.SNAPSHOTTING, VmRun.run_id.in_(cancelled), ~told)


def _describing_is_cancelled() -> ColumnElement[bool]:
    cancelled = select(Run.id).where(Run.cancel_requested, Run.state.in_(_ACTIVE))
    untold = exists().where(
        VcenterStep.subject == VmRun.repository_run, VcenterStep.kind == DESCRIBE, ~VcenterStep.cancelling
    )
    return and_(VmRun.state == VmRunState.OPENING, VmRun.run_id.in_(cancelled), untold)


def _scanning_is_cancelled() -> ColumnElement[bool]:
    """Runs that wait for vCenters alone: those are read for others, too."""
    looking = LedgerTask.kind.in_((TaskKind.INVENTORY_SCAN, TaskKind.COPY_PLAN))
    unended = LedgerTask.state.in_((WorkState.RUNNING, WorkState.WAITING))
    of_proxies = exists().where(LedgerTask.run_id == Run.id, looking, unended)
    return and_(Run.state == RunState.SCANNING, Run.cancel_requested, ~of_proxies)


def _restore_cancel_is_owed() -> ColumnElement[bool]:
    cancelled = select(Restore.id).where(Restore.cancel_requested, Restore.state == WorkState.RUNNING)
    return and_(LedgerTask.cancelling.is_(False), LedgerTask.restore_id.in_(cancelled))


def _begin_restores(journal: Journal) -> None:
    session = journal.session
    for restore in session.scalars(select(Restore).where(Restore.state == WorkState.REQUESTED)).all():
        try:
            repository = tasks.reference(session.get(Repository, restore.repository), restore.repository)
        except NoSuchRepositoryError as error:
            restore.state, restore.failure, restore.ended_at = WorkState.FAILED, TaskFailure.of(error), journal.now
            continue
        if restore.cancel_requested:
            restore.state, restore.ended_at = WorkState.CANCELLED, journal.now
            continue
        restore.state = WorkState.RUNNING
        journal.open(tasks.restore_task(restore, repository, journal.now))


def _begin_requests(journal: Journal) -> None:
    session = journal.session
    for request in session.scalars(select(Request).where(Request.state == WorkState.REQUESTED)).all():
        declared = session.get(Repository, request.repository)
        try:
            task = tasks.request_task(request, declared, journal.now, linked=linked_to(session, declared))
        except NoSuchRepositoryError as error:
            request.state, request.failure, request.ended_at = WorkState.FAILED, TaskFailure.of(error), journal.now
            continue
        request.state = WorkState.RUNNING
        journal.open(task)


def _cancel(journal: Journal) -> None:
    session = journal.session
    owed = select(LedgerTask).where(or_(_cancel_is_owed(), _restore_cancel_is_owed()))
    for row in session.scalars(owed).all():
        journal.cancel(row)
    touched: set[str] = set()
    for disk in session.scalars(select(DiskTask).where(_wait_is_cancelled())).all():
        disk.state, disk.retry_at = DiskTaskState.CANCELLED, None
        touched.add(disk.vm_run_id)
    settle_vm_runs(journal, touched)
    for vm_run in session.scalars(select(VmRun).where(_freezing_is_cancelled())).all():
        cancel_freezing(journal, vm_run)
    for vm_run in session.scalars(select(VmRun).where(_describing_is_cancelled())).all():
        cancel_opening(journal, vm_run)
    for run in session.scalars(select(Run).where(_scanning_is_cancelled())).all():
        plan_if_scanned(journal, run)
    for row in session.scalars(select(LedgerTask).where(_upkeep_wait_is_cancelled())).all():
        row.retry_at = journal.now  # a last try now: the run ends with it, one way or the other


def _retry_disks(journal: Journal) -> None:
    session = journal.session
    by_vm_run: dict[str, list[DiskTask]] = defaultdict(list)
    for disk in session.scalars(select(DiskTask).where(_retry_is_due(journal.now))):
        by_vm_run[disk.vm_run_id].append(disk)
    for vm_run_id, disks in by_vm_run.items():
        vm_run = session.get_one(VmRun, vm_run_id)
        run = session.get_one(Run, vm_run.run_id)
        first = session.scalars(
            select(DiskTask.id).where(DiskTask.vm_run_id == vm_run_id).order_by(DiskTask.id).limit(1)
        ).one()
        journal.begun.add(vm_run_id)
        for disk in disks:
            disk.tries += 1
            if vm_run.replica_id is not None:
                queue_disk(journal, run, vm_run, disk, configuration=disk.id == first)
                continue
            disk.state, disk.retry_at = DiskTaskState.QUEUED, None
            try:
                repository = tasks.repository_of(session, run)
                if vm_run.copy_of is not None:
                    task = copy_task(journal, run, vm_run, disk, repository)
                else:
                    with_files = disk.id == first
                    task = tasks.backup_task(run, vm_run, disk, repository, journal.now, configuration=with_files)
            except NoSuchRepositoryError as error:
                disk.state, disk.failure = DiskTaskState.FAILED, TaskFailure.of(error)
                continue
            journal.open(task)
        settle_vm_runs(journal, {vm_run_id})


def _retry_upkeep(journal: Journal) -> None:
    session = journal.session
    due = select(LedgerTask).where(LedgerTask.state == WorkState.WAITING, LedgerTask.retry_at <= journal.now)
    for row in session.scalars(due).all():
        row.tries += 1
        row.id = f"{row.id.rpartition('.')[0]}.{row.tries}"
        row.state, row.retry_at, row.created_at = WorkState.RUNNING, None, journal.now
        journal.opened.append(row)
