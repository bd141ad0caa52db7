"""The disks of a VM run that replicates: two tasks for each, which end together or are begun anew together."""

from __future__ import annotations

import logging

from sqlalchemy import select

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.replication import ReplicaPlace
from proxy_worker.contract.replication_outcome import DiskReceiveResult, DiskReplicateResult
from scheduler.replication.places import reached
from scheduler.replication.tasks import pair_tasks
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.warnings import warn
from scheduler.state.models import DiskTask, DiskTaskState, LedgerTask, Replica, Run, VmRun

logger = logging.getLogger(__name__)


def queue_disk(journal: Journal, run: Run, vm_run: VmRun, disk: DiskTask, *, configuration: bool) -> None:
    """Have a disk moved, for the first time or again."""
    disk.state, disk.retry_at, disk.result, disk.failure = DiskTaskState.QUEUED, None, None, None
    source = _replica_in_vcenter(journal, run)
    for task in pair_tasks(run, vm_run, disk, journal.now, configuration=configuration, source=source):
        journal.open(task)


def _replica_in_vcenter(journal: Journal, run: Run) -> ReplicaPlace | None:
    """What a failback reads, where that is a VM of a vCenter."""
    if run.failback_of is None:
        return None
    place = reached(journal.session.get_one(Replica, run.failback_of))
    return place if place.vsphere is not None else None


def record_disk(journal: Journal, row: LedgerTask, outcome: Outcome) -> str:
    """Record how one of the two ended, and with the second the disk's end; answers the VM run."""
    session = journal.session
    disk = session.get_one(DiskTask, row.disk_task_id)
    run = session.get_one(Run, disk.run_id)
    disk.queued_at = disk.queued_at or row.created_at
    if row.kind is TaskKind.DISK_REPLICATE:
        disk.attempts += outcome.attempts
        disk.history += outcome.history
        disk.proxy = outcome.proxy or disk.proxy
        disk.started_at = outcome.started_at or disk.started_at
    else:
        disk.target_proxy = outcome.proxy or disk.target_proxy
    disk.ended_at = outcome.ended_at
    if isinstance(outcome.result, DiskReplicateResult):
        disk.result, disk.failure = outcome.result, None
        disk.size_bytes = outcome.result.report.size_bytes
    elif isinstance(outcome.result, DiskReceiveResult):
        if outcome.result.note:
            warn(session.get_one(VmRun, disk.vm_run_id), f"{disk.disk_key} was compared: {outcome.result.note}")
    elif disk.failure is None and disk.result is None:
        disk.failure = outcome.failure or row.failure
    journal.close(row)
    session.flush()
    others = session.scalars(select(LedgerTask).where(LedgerTask.disk_task_id == disk.id)).all()
    if disk.result is None:  # otherwise the target is about to end, too, or never began
        for other in others:
            journal.cancel(other)
    if not others:
        _end(journal, run, disk)
    return disk.vm_run_id


def _end(journal: Journal, run: Run, disk: DiskTask) -> None:
    if disk.result is not None:
        disk.state, disk.checkpoint = DiskTaskState.SUCCEEDED, None
        disk.target_proxy = disk.target_proxy or disk.proxy
        return
    if run.cancel_requested:
        disk.state = DiskTaskState.CANCELLED
        return
    failure = disk.failure or TaskFailure(
        code="pair-parted",
        what=f"disk {disk.disk_key}",
        why="one of its two tasks ended without the other",
        retryable=True,
    )
    about = {"run": run.id, "job": run.job, "disk": disk.disk_key, "proxy": disk.proxy}
    logger.warning("disk %s of run %s: %s", disk.id, run.id, failure, extra=about)
    disk.failure = failure
    if failure.retryable and disk.tries <= run.retry_count:
        disk.state, disk.retry_at = DiskTaskState.WAITING, journal.now + run.retry_wait_seconds
    else:
        disk.state = DiskTaskState.FAILED
