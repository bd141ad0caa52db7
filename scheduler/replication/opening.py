"""Whether a replica, or the original that a failback writes, can be written; it is made where there is none.

A replica in a vCenter is made of what its original is. Of one that is in a vCenter, too, that is asked there first.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.replication import ReplicaOpen, ReplicaPlace
from scheduler.replication import tasks
from scheduler.replication.places import machine_of, reached, reached_original
from scheduler.runs.completion import end_vm_run
from scheduler.runs.journal import Journal
from scheduler.runs.steps import StepHandling, open_step, try_later
from scheduler.runs.waiting import step_id
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Replica,
    ReplicaState,
    Run,
    StepState,
    VcenterStep,
    VmRun,
    VmRunState,
)
from scheduler.vcenters.describing import DESCRIBE, Described, DescribeRequest
from scheduler.vcenters.steps import StepOutcome

logger = logging.getLogger(__name__)


def open_replica(journal: Journal, run: Run, vm_run: VmRun) -> None:
    """-> OPENING."""
    vm_run.state = VmRunState.OPENING
    replica = journal.session.get_one(Replica, vm_run.replica_id)
    if vm_run.place is None or replica.machine is None:
        _ask_whether_writable(journal, run, vm_run, replica)
        return
    open_step(
        journal,
        DESCRIBE.name,
        vcenter=vm_run.place.vcenter,
        subject=vm_run.repository_run or "",
        title=f"description of {vm_run.name}",
        request=DescribeRequest(vm_ref=vm_run.place.ref, vm_id=vm_run.vm_id or "", vm_name=vm_run.name),
    )


def cancel_opening(journal: Journal, vm_run: VmRun) -> None:
    """End a VM run that waits for its original's description; one that is just being read is told to stop first."""
    step = journal.session.get_one(VcenterStep, step_id(DESCRIBE.name, vm_run.repository_run or ""))
    if step.state is StepState.STARTED:
        journal.stop(step)
        return
    journal.close_step(step)
    fail_before_it_began(journal, vm_run, "the run was cancelled", VmRunState.CANCELLED)


def place_written(run: Run, replica: Replica) -> ReplicaPlace:
    """What a run writes of a replica: the replica, or its original."""
    return reached(replica) if run.failback_of is None else reached_original(replica)


def fail_before_it_began(
    journal: Journal, vm_run: VmRun, reason: str, state: VmRunState = VmRunState.FAILED
) -> None:
    """End a VM run of which nothing was written."""
    for disk in journal.session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)):
        disk.state = DiskTaskState.CANCELLED
    end_vm_run(journal, vm_run, state, reason)


def _ask_whether_writable(journal: Journal, run: Run, vm_run: VmRun, replica: Replica) -> None:
    back = run.failback_of is not None
    place = place_written(run, replica)
    body = ReplicaOpen(
        replica=place,
        vm=tasks.original_of(replica),
        mapped=replica.mapped or back,
        expected=not back and replica.state is not ReplicaState.NEW,
        disks=replica.original_disks if back else (),
        machine=machine_of(replica, run.replica) if not back else None,
    )
    journal.open(tasks.open_task(run, vm_run, body, journal.now))


def _record(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    """OPENING goes on: what the original is made of is known."""
    session = journal.session
    vm_run = session.scalars(select(VmRun).where(VmRun.repository_run == step.subject)).first()
    if vm_run is None or vm_run.state is not VmRunState.OPENING:
        journal.close_step(step)
        return
    run = session.get_one(Run, vm_run.run_id)
    described, failure = outcome.answer, outcome.failure
    if isinstance(described, Described) and not run.cancel_requested:
        journal.close_step(step)
        replica = session.get_one(Replica, vm_run.replica_id)
        replica.machine = described.machine
        _ask_whether_writable(journal, run, vm_run, replica)
        return
    if failure is not None and failure.retryable and step.tries <= run.retry_count and not run.cancel_requested:
        logger.warning("%s of run %s: %s", step.title, run.id, failure, extra={"run": run.id, "job": run.job})
        try_later(journal, step, failure, run.retry_wait_seconds)
        return
    journal.close_step(step)
    if run.cancel_requested:
        fail_before_it_began(journal, vm_run, "the run was cancelled", VmRunState.CANCELLED)
    else:
        fail_before_it_began(journal, vm_run, str(failure or "it isn't known what it is made of"))


OPENING: Final = StepHandling(_record)
