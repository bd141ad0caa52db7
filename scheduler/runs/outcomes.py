"""What finished tasks mean: each outcome is recorded where it belongs, and what depends on it moves on.

Recording is idempotent: a task that isn't in the journal any more has been recorded before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.disks import DiskBackupResult, DiskRestoreResult
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import (
    PointDeleteResult,
    RepositoryAbandonResult,
    RepositoryCommitResult,
    RepositoryListResult,
    RepositoryProveResult,
    TaskFailure,
)
from proxy_worker.contract.specification import InventoryScan, RepositoryAbandon
from proxy_worker.contract.using import PointBootResult
from scheduler.replication import outcomes as replicas
from scheduler.restores.outcomes import record_task as record_task_of_restore
from scheduler.runs.bases import keep_bases
from scheduler.runs.beginning import plan_if_scanned
from scheduler.runs.catalogue import add_point, add_point_of, note_space, replace_points
from scheduler.runs.completion import end_vm_run, give_up_commit, settle_vm_runs
from scheduler.runs.freezing_storage import record_creation
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.proving import record_boot, record_proof
from scheduler.runs.retention import forget_point
from scheduler.runs.thawing_storage import record_list, record_removal
from scheduler.runs.warnings import warn
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    LedgerTask,
    Request,
    Restore,
    Run,
    VmRun,
    VmRunState,
    WorkState,
)

logger = logging.getLogger(__name__)

_STORAGE: Final[Mapping[TaskKind, Callable[[Journal, LedgerTask, Outcome], None]]] = {
    TaskKind.STORAGE_SNAPSHOT_CREATE: record_creation,
    TaskKind.STORAGE_SNAPSHOT_REMOVE: record_removal,
    TaskKind.STORAGE_SNAPSHOT_LIST: record_list,
}
DISKS_OF_RUNS: Final = frozenset({TaskKind.DISK_BACKUP, TaskKind.DISK_COPY})
UPKEEP_RETRY_S = 60.0
"""At most this long passes before a scan, a commit or a tombstone is tried again: disks wait for them."""


def record(journal: Journal, outcomes: Sequence[Outcome]) -> None:
    """Record outcomes, and take every step that has become possible by them."""
    session = journal.session
    by_id = {outcome.task_id: outcome for outcome in outcomes}
    rows = session.scalars(select(LedgerTask).where(LedgerTask.id.in_(by_id))).all()
    journal.closed.extend(by_id.keys() - {row.id for row in rows})
    disk_ids = [row.disk_task_id for row in rows if row.kind in DISKS_OF_RUNS]
    disks = {disk.id: disk for disk in session.scalars(select(DiskTask).where(DiskTask.id.in_(disk_ids)))}
    runs = {run.id: run for run in session.scalars(select(Run).where(Run.id.in_({row.run_id for row in rows})))}
    vm_run_ids: set[str] = set()
    scanned: set[str] = set()
    for row in rows:
        outcome = by_id[row.id]
        if row.kind in DISKS_OF_RUNS and row.disk_task_id in disks:
            disk = disks[row.disk_task_id]
            disk.queued_at = disk.queued_at or row.created_at
            _record_disk(runs[disk.run_id], disk, outcome, outcome.failure or row.failure, journal.now)
            vm_run_ids.add(disk.vm_run_id)
            journal.close(row)
        elif row.kind in replicas.KINDS:
            vm_run_ids.update(replicas.record_task(journal, row, outcome))
        elif row.kind in {TaskKind.INVENTORY_SCAN, TaskKind.COPY_PLAN}:
            _record_scan(journal, row, runs[row.run_id or ""], outcome)
            scanned.add(row.run_id or "")
        elif row.kind is TaskKind.REPOSITORY_COMMIT:
            _record_commit(journal, row, outcome)
        elif row.kind is TaskKind.REPOSITORY_ABANDON:
            _record_abandon(journal, row, outcome)
        elif row.kind in _STORAGE:
            _STORAGE[row.kind](journal, row, outcome)
        elif row.vm_restore_id is not None:
            record_task_of_restore(journal, row, outcome)
        elif row.kind is TaskKind.DISK_RESTORE:
            _record_restore(journal, row, outcome)
        else:
            _record_request(journal, row, outcome)
    settle_vm_runs(journal, vm_run_ids)
    for run_id in scanned:
        if run_id in runs:
            plan_if_scanned(journal, runs[run_id])


def _record_disk(run: Run, disk: DiskTask, outcome: Outcome, failure: TaskFailure | None, now: float) -> None:
    """`failure` is also why the task was given up that nobody could take."""
    disk.attempts += outcome.attempts
    disk.history += outcome.history
    disk.proxy = outcome.proxy or disk.proxy
    disk.started_at = outcome.started_at or disk.started_at
    disk.ended_at = outcome.ended_at
    if isinstance(outcome.result, DiskBackupResult):
        disk.state, disk.result, disk.fence = DiskTaskState.SUCCEEDED, outcome.result, outcome.fence_number
        disk.size_bytes = outcome.result.report.size_bytes
        disk.checkpoint = None
        return
    if failure is None or run.cancel_requested:
        disk.state, disk.failure = DiskTaskState.CANCELLED, failure
        return
    about = {"run": run.id, "job": run.job, "disk": disk.disk_key, "task": outcome.task_id, "proxy": outcome.proxy}
    logger.warning("disk %s of run %s: %s", disk.id, run.id, failure, extra=about)
    disk.failure = failure
    disk.checkpoint = outcome.checkpoint
    if failure.retryable and disk.tries <= run.retry_count:
        disk.state, disk.retry_at = DiskTaskState.WAITING, now + run.retry_wait_seconds
    else:
        disk.state = DiskTaskState.FAILED


def _record_scan(journal: Journal, row: LedgerTask, run: Run, outcome: Outcome) -> None:
    failure = outcome.failure
    body, terms = row.body, run.replica
    wanted = terms is None or not isinstance(body, InventoryScan) or not terms.does_without(body.datastore)
    again = failure is not None and failure.retryable and row.tries <= run.retry_count
    if failure is not None and again and wanted and not run.cancel_requested:
        _try_later(journal, row, run, failure)
        return
    journal.keep(row)
    if outcome.result is not None:
        row.state, row.result, row.failure = WorkState.SUCCEEDED, outcome.result, None
        return
    row.state = WorkState.FAILED
    # One that no proxy could take carries its reason since it was given up.
    row.failure = outcome.failure or row.failure or TaskFailure(code="cancelled", what=f"{row.title} was cancelled")


def _record_commit(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    session = journal.session
    vm_run = session.get_one(VmRun, row.vm_run_id)
    run = session.get_one(Run, vm_run.run_id)
    if isinstance(outcome.result, RepositoryCommitResult):
        add_point(session, run.repository, outcome.result.point)
        note_space(session, run.repository, outcome.result.space, journal.now)
        keep_bases(session, run, vm_run)
        journal.close(row)
        end_vm_run(journal, vm_run, VmRunState.SUCCEEDED)
        return
    failure = outcome.failure
    if failure is not None and failure.retryable and row.tries <= run.retry_count and not run.cancel_requested:
        _try_later(journal, row, run, failure)
        warn(vm_run, f"the restore point could not be committed yet: {failure}")
        return
    journal.close(row)
    why = failure or row.failure or "cancelled"
    reason = f"its disks were stored, but the restore point could not be committed: {why}"
    give_up_commit(journal, vm_run, reason)


def _record_abandon(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    session = journal.session
    vm_run = session.get_one(VmRun, row.vm_run_id)
    run = session.get_one(Run, vm_run.run_id)
    # A tombstone of an earlier attempt may come late, when the VM run has begun again under another name.
    of_this_attempt = isinstance(row.body, RepositoryAbandon) and row.body.run == vm_run.repository_run
    waited_for = vm_run.state is VmRunState.ABANDONING and of_this_attempt
    if isinstance(outcome.result, RepositoryAbandonResult):
        journal.close(row)
        if waited_for and outcome.result.committed:
            warn(vm_run, f"the commit's answer was lost ({vm_run.reason}), but the restore point exists")
            vm_run.reason = None
            add_point_of(session, run, vm_run, journal.now)
            keep_bases(session, run, vm_run)
            end_vm_run(journal, vm_run, VmRunState.SUCCEEDED)
        elif waited_for:
            end_vm_run(journal, vm_run, VmRunState.FAILED)
        return
    failure = outcome.failure
    if failure is not None and failure.retryable and row.tries <= run.retry_count:
        _try_later(journal, row, run, failure)
        return
    journal.close(row)
    warn(vm_run, f"no tombstone was put in the repository: {failure or row.failure or 'cancelled'}")
    if waited_for:
        end_vm_run(journal, vm_run, VmRunState.FAILED)


def _record_restore(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    journal.close(row)
    restore = journal.session.get_one(Restore, row.restore_id)
    restore.attempts += outcome.attempts
    restore.failure = outcome.failure or row.failure
    if isinstance(outcome.result, DiskRestoreResult):
        restore.report = outcome.result.report
        restore.state = WorkState.SUCCEEDED
    elif restore.failure is None:
        restore.state = WorkState.CANCELLED
    else:
        restore.state = WorkState.FAILED
    restore.ended_at = journal.now


def _record_request(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    journal.close(row)
    request = journal.session.get_one(Request, row.request_id)
    request.failure = outcome.failure or row.failure
    request.ended_at = journal.now
    if isinstance(outcome.result, RepositoryListResult):
        rescanned = replace_points(journal.session, request.repository, outcome.result, asked_at=request.created_at)
        request.summary = str(rescanned)
        note_space(journal.session, request.repository, outcome.result.space, journal.now)
        request.state = WorkState.SUCCEEDED
    elif outcome.result is not None:
        request.result = outcome.result
        request.state = WorkState.SUCCEEDED
        if isinstance(outcome.result, PointDeleteResult):
            forget_point(journal.session, request, outcome.result)
        elif isinstance(outcome.result, RepositoryProveResult):
            record_proof(journal, request, outcome.result)
        elif isinstance(outcome.result, PointBootResult):
            record_boot(journal, request, outcome.result)
    else:
        request.state = WorkState.CANCELLED if request.failure is None else WorkState.FAILED


def _try_later(journal: Journal, row: LedgerTask, run: Run, failure: TaskFailure) -> None:
    """Keep the row, and out of the ledger, until its next try is due."""
    row.state, row.failure = WorkState.WAITING, failure
    row.retry_at = journal.now + min(run.retry_wait_seconds, UPKEEP_RETRY_S)
    journal.keep(row)
