"""VMs of vCenters: frozen in a snapshot before their disks are read.

Where storage snapshots take a snapshot's place, they come between `_record` and `open_disks`: the VM run stays
SNAPSHOTTING until the disks' addresses name them, and the snapshot is thawed then rather than at the end; see
`freezing_storage`.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import delete

from proxy_worker.contract.outcome import TaskFailure
from scheduler.planning.places import VcenterPlace
from scheduler.planning.selection import PlannedVm
from scheduler.replication.targets import with_targets
from scheduler.runs import tasks
from scheduler.runs.bases import former_disks
from scheduler.runs.completion import end_vm_run
from scheduler.runs.freezing_storage import cancel_on_storage, freeze_on_storage
from scheduler.runs.journal import Journal
from scheduler.runs.opening import Opened, open_disks
from scheduler.runs.removing import discard, thaw
from scheduler.runs.steps import REGULAR_PRIORITY, StepHandling, open_step, try_later
from scheduler.runs.waiting import SNAPSHOT, step_id
from scheduler.runs.warnings import warn
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTask,
    Priority,
    Run,
    SnapshotEntry,
    SnapshotState,
    StepState,
    VcenterStep,
    VcenterVm,
    VmRun,
    VmRunState,
)
from scheduler.state.scanning import declared_datastores
from scheduler.vcenters.freezing import FrozenDisk, SnapshotMade, SnapshotRequest
from scheduler.vcenters.steps import StepOutcome

logger = logging.getLogger(__name__)

_SOONER: Final = {Priority.HIGH: REGULAR_PRIORITY - 10}


def place_of(journal: Journal, vm: PlannedVm) -> VcenterPlace | None:
    """Where a vCenter has a planned VM, by the catalogue that it was planned from; None: no vCenter has it."""
    if vm.vcenter is None or vm.ref is None:
        return None
    found = journal.session.get_one(VcenterVm, (vm.vcenter, vm.ref))
    planned = {disk.key for disk in vm.disks}
    return VcenterPlace(
        vcenter=vm.vcenter,
        ref=vm.ref,
        datacenter=found.datacenter,
        datastores=tuple(
            dict.fromkeys(disk.datastore for disk in found.disks if disk.key in planned and disk.datastore)
        ),
        excluded_disks=tuple(disk.key for disk in found.disks if disk.key not in planned),
        windows=found.windows,
        folder=found.folder,
        pool="/".join(part for part in (found.cluster, found.pool) if part) or None,
        host=found.host,
    )


def freeze(journal: Journal, run: Run, vm_run: VmRun, place: VcenterPlace) -> None:
    """Have a VM frozen, under the name of the restore point that it is to become; its disks are opened after it."""
    session = journal.session
    name, vm_id = vm_run.repository_run or "", vm_run.vm_id or ""
    vm_run.state = VmRunState.SNAPSHOTTING
    session.execute(delete(DiskTask).where(DiskTask.vm_run_id == vm_run.id))  # of an earlier attempt
    entry = SnapshotEntry(
        id=name,
        vcenter=place.vcenter,
        vm_ref=place.ref,
        vm_id=vm_id,
        vm_name=vm_run.name,
        vm_run_id=vm_run.id,
        datastores=place.datastores,
        state=SnapshotState.PLANNED,
        created_at=journal.now,
        tries=0,
    )
    session.add(entry)
    former = former_disks(session, run, vm_run, journal.now)
    open_step(
        journal,
        SNAPSHOT,
        vcenter=place.vcenter,
        subject=name,
        title=f"snapshot of {vm_run.name}",
        request=SnapshotRequest(
            vm_ref=place.ref,
            vm_id=vm_id,
            vm_name=vm_run.name,
            journal=name,
            datacenter=place.datacenter,
            quiesce=run.quiesce,
            excluded_disks=place.excluded_disks,
            windows=place.windows,
            declared=declared_datastores(session, place.vcenter, place.datacenter),
            bases=former.bases,
            former_disks=former.keys,
        ),
        vm_ref=place.ref,
        priority=_SOONER.get(run.priority),
    )


def cancel_freezing(journal: Journal, vm_run: VmRun) -> None:
    """End a VM run that waits for its snapshot; one that is just being made is told to stop first."""
    session = journal.session
    step = session.get(VcenterStep, step_id(SNAPSHOT, vm_run.repository_run or ""))
    if step is not None and step.state is StepState.STARTED:
        journal.stop(step)
        return
    entry = session.get(SnapshotEntry, vm_run.repository_run)
    cancel_on_storage(journal, vm_run)
    if step is not None:
        journal.close_step(step)
    if entry is not None:
        discard(journal, entry)
    end_vm_run(journal, vm_run, VmRunState.CANCELLED, "cancelled")


def _starting(journal: Journal, step: VcenterStep) -> None:
    entry = journal.session.get_one(SnapshotEntry, step.subject)
    if entry.state is SnapshotState.PLANNED:
        entry.state = SnapshotState.MAKING


def _record(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    session = journal.session
    entry = session.get_one(SnapshotEntry, step.subject)
    vm_run = session.get(VmRun, entry.vm_run_id)
    made = outcome.answer if isinstance(outcome.answer, SnapshotMade) else None
    if made is not None:
        entry.state, entry.made_at = SnapshotState.PRESENT, journal.now
        entry.ref, entry.quiesced, entry.vm_ref = made.snapshot, made.quiesced, made.vm_ref
        entry.datastores = made.datastores
    if vm_run is None or vm_run.state is not VmRunState.SNAPSHOTTING or vm_run.repository_run != entry.id:
        journal.close_step(step)
        discard(journal, entry)
        return
    run = session.get_one(Run, vm_run.run_id)
    if made is not None and not run.cancel_requested:
        journal.close_step(step)
        _frozen(journal, run, vm_run, made)
        return
    failure = outcome.failure
    if failure is not None and failure.retryable and step.tries <= run.retry_count and not run.cancel_requested:
        about = {"run": run.id, "job": run.job, "vm": vm_run.name}
        logger.warning("%s of run %s: %s", step.title, run.id, failure, extra=about)
        try_later(journal, step, failure, run.retry_wait_seconds)
        return
    journal.close_step(step)
    discard(journal, entry)
    if run.cancel_requested:
        end_vm_run(journal, vm_run, VmRunState.CANCELLED, "cancelled")
    else:
        about = {"run": run.id, "job": run.job, "vm": vm_run.name}
        logger.warning("VM %s of run %s: %s", vm_run.name, run.id, failure, extra=about)
        end_vm_run(journal, vm_run, VmRunState.FAILED, _why(failure))


def _frozen(journal: Journal, run: Run, vm_run: VmRun, made: SnapshotMade) -> None:
    """SNAPSHOTTING -> RUNNING, unless storage snapshots come between: the disks are as they stand still."""
    try:
        repository = tasks.repository_if_any(journal.session, run)
    except NoSuchRepositoryError as error:
        thaw(journal, vm_run.repository_run)
        end_vm_run(journal, vm_run, VmRunState.FAILED, str(error))
        return
    for text in made.warnings:
        warn(vm_run, text)
    vm_run.configuration = made.configuration
    if vm_run.place is not None:
        vm_run.place = vm_run.place.model_copy(update={"ref": made.vm_ref})
    opened = [_opened(disk) for disk in made.disks]
    disks = opened if vm_run.replica_id is None else with_targets(journal.session, run, vm_run, opened)
    if disks is None:
        thaw(journal, vm_run.repository_run)
        end_vm_run(journal, vm_run, VmRunState.FAILED, "it has other disks by now than when the run was planned")
        return
    if made.snapshot is not None and freeze_on_storage(journal, run, vm_run, disks):
        return
    vm_run.state = VmRunState.RUNNING
    open_disks(journal, run, vm_run, disks, repository)


def _opened(disk: FrozenDisk) -> Opened:
    return Opened(
        key=disk.key,
        address=disk.address,
        size_bytes=disk.size_bytes,
        changed_areas=disk.changed_areas,
        parent=disk.parent,
        full_read_reason=disk.full_read_reason,
        tracking=disk.tracking,
    )


def _why(failure: TaskFailure | None) -> str:
    return str(failure) if failure is not None else "its snapshot was not made"


FREEZING: Final = StepHandling(_record, _starting)
