"""The last steps: a VM run whose disks have ended is committed or abandoned, a run whose VMs have ended ends."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection

from sqlalchemy import func, select, update

from scheduler.replication.tasks import point_task, replica_point
from scheduler.runs import tasks
from scheduler.runs.held_copies import release_held
from scheduler.runs.journal import Journal
from scheduler.runs.removing import thaw
from scheduler.runs.thawing_storage import thaw_storage
from scheduler.runs.warnings import warn
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import DiskTask, DiskTaskState, Replica, Repository, Run, RunState, VmRun, VmRunState
from scheduler.state.run_kind import RunKind

logger = logging.getLogger(__name__)


def settle_vm_runs(journal: Journal, vm_run_ids: Collection[str]) -> None:
    """Move VM runs on whose last disk has ended, and their runs after them."""
    session = journal.session
    if not vm_run_ids:
        return
    session.flush()
    counts: dict[str, Counter[DiskTaskState]] = defaultdict(Counter)
    grouped = select(DiskTask.vm_run_id, DiskTask.state, func.count()).where(DiskTask.vm_run_id.in_(vm_run_ids))
    for vm_run_id, state, count in session.execute(grouped.group_by(DiskTask.vm_run_id, DiskTask.state)):
        counts[vm_run_id][state] = count
    runs: dict[str, Run] = {}
    for vm_run in session.scalars(select(VmRun).where(VmRun.id.in_(vm_run_ids))).all():
        states = counts[vm_run.id]
        if vm_run.state is not VmRunState.RUNNING or any(not state.final for state in states):
            continue
        run = runs.setdefault(vm_run.run_id, session.get_one(Run, vm_run.run_id))
        if vm_run.copy_of is None:
            thaw(journal, vm_run.repository_run)
        if vm_run.place is not None:
            thaw_storage(journal, vm_run)
        _forget_areas(journal, vm_run)
        if set(states) == {DiskTaskState.SUCCEEDED}:
            _keep(journal, run, vm_run)
        else:
            _give_up_disks(journal, run, vm_run, states)
    for run in runs.values():
        settle_run(journal, run)


def end_vm_run(journal: Journal, vm_run: VmRun, state: VmRunState, reason: str | None = None) -> None:
    """Bring a VM run to a final state, and its run with it if it was the last."""
    vm_run.state, vm_run.ended_at = state, journal.now
    vm_run.reason = reason or vm_run.reason
    settle_run(journal, journal.session.get_one(Run, vm_run.run_id))


def give_up_commit(journal: Journal, vm_run: VmRun, reason: str) -> None:
    """COMMITTING -> ABANDONING: whether there is a restore point is for the tombstone to find out."""
    run = journal.session.get_one(Run, vm_run.run_id)
    vm_run.state, vm_run.reason = VmRunState.ABANDONING, reason
    if not _abandon(journal, run, vm_run, reason):
        end_vm_run(journal, vm_run, VmRunState.FAILED)


def settle_run(journal: Journal, run: Run) -> None:
    """End a run whose VM runs have all ended."""
    session = journal.session
    session.flush()
    if run.state is not RunState.RUNNING:
        return
    if run.copy_from is not None:
        release_held(journal, run)
        session.flush()
    grouped = select(VmRun.state, func.count()).where(VmRun.run_id == run.id).group_by(VmRun.state)
    counts: Counter[VmRunState] = Counter()
    for state, count in session.execute(grouped):
        counts[state] = count
    if any(not state.final for state in counts):
        return
    total, succeeded = counts.total(), counts[VmRunState.SUCCEEDED]
    run.ended_at = journal.now
    kind = RunKind.of(run)
    if succeeded == total and (total or kind is RunKind.COPY):
        run.state = RunState.SUCCEEDED
        run.reason = None if total else f"nothing to copy: repository {run.repository} has all of them"
    elif run.cancel_requested:
        run.state, run.reason = RunState.CANCELLED, f"{succeeded} of {total} {kind.unit}s were {kind.done} by then"
    elif succeeded:
        run.state, run.reason = RunState.PARTLY_FAILED, f"{total - succeeded} of {total} {kind.unit}s failed"
    else:
        run.state = RunState.FAILED
        run.reason = f"no {kind.unit} was {kind.done}" if total else "the job names no VM"
    ended = f"{run.state}: {run.reason}" if run.reason else run.state
    logger.info("run %s of job %s: %s", run.id, run.job, ended, extra={"run": run.id, "job": run.job})


def _forget_areas(journal: Journal, vm_run: VmRun) -> None:
    """Changed areas are for retries of this attempt alone, and are large."""
    of_vm = update(DiskTask).where(DiskTask.vm_run_id == vm_run.id, DiskTask.changed_areas.is_not(None))
    journal.session.execute(of_vm.values(changed_areas=None))


def _keep(journal: Journal, run: Run, vm_run: VmRun) -> None:
    """RUNNING -> COMMITTING, unless nothing is to be kept of it: what a replica brings back is in place by now."""
    if vm_run.replica_id is None:
        _commit(journal, run, vm_run)
    elif run.failback_of is not None:
        end_vm_run(journal, vm_run, VmRunState.SUCCEEDED)
    else:
        replica = journal.session.get_one(Replica, vm_run.replica_id)
        vm_run.state = VmRunState.COMMITTING
        journal.open(point_task(run, vm_run, replica_point(replica, vm_run.repository_run or "", run), journal.now))


def _commit(journal: Journal, run: Run, vm_run: VmRun) -> None:
    session = journal.session
    disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)).all()
    try:
        repository = tasks.reference(session.get(Repository, run.repository), run.repository)
    except NoSuchRepositoryError as error:
        end_vm_run(journal, vm_run, VmRunState.FAILED, str(error))
        return
    vm_run.state = VmRunState.COMMITTING
    journal.open(tasks.commit_task(run, vm_run, disks, repository, journal.now))


def _give_up_disks(journal: Journal, run: Run, vm_run: VmRun, states: Counter[DiskTaskState]) -> None:
    vm_run.cancelled = states[DiskTaskState.CANCELLED] > 0
    failed = states[DiskTaskState.FAILED]
    if vm_run.cancelled:
        vm_run.state, vm_run.reason = VmRunState.CANCELLED, "the run was cancelled"
    else:
        vm_run.state, vm_run.reason = VmRunState.FAILED, f"{failed} of {states.total()} disks failed"
    vm_run.ended_at = journal.now
    if vm_run.replica_id is not None:
        return
    touched = select(func.sum(DiskTask.attempts)).where(DiskTask.vm_run_id == vm_run.id)
    if journal.session.scalar(touched):
        # Nothing waits for this tombstone: without a commit there can be no restore point.
        _abandon(journal, run, vm_run, vm_run.reason)


def _abandon(journal: Journal, run: Run, vm_run: VmRun, reason: str) -> bool:
    """Open the task that puts the tombstone; False when the repository is not declared any more."""
    repository = journal.session.get(Repository, run.repository)
    if repository is None:
        warn(vm_run, f"no tombstone was put: repository {run.repository!r} is not declared any more")
        return False
    reference = tasks.reference(repository, run.repository)
    journal.open(tasks.abandon_task(run, vm_run, reference, reason, journal.now))
    return True
