"""VMs whose disks are read from storage snapshots: their own snapshot lives only until those exist.

SNAPSHOTTING goes on: a task per datastore makes a storage snapshot while the VM's snapshot holds the disks still.
When all are made, the VM's snapshot is removed, and the disks are opened with addresses that only the storage
snapshots have. If one can't be made, those that were are removed, and the disks are read from the VM's snapshot.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.names import AUTOMATIC, TaskKind, TransportMode
from proxy_worker.contract.outcome import StorageSnapshotCreateResult, TaskFailure
from proxy_worker.contract.selection import traits_of
from proxy_worker.contract.specification import StorageSnapshotCreate
from scheduler.dispatch.fleet import Urgency
from scheduler.runs import tasks
from scheduler.runs.completion import end_vm_run
from scheduler.runs.journal import Journal
from scheduler.runs.opening import Opened, hold_disks, open_disk
from scheduler.runs.outcome import Outcome
from scheduler.runs.removing import thaw
from scheduler.runs.thawing_storage import mark_of, open_removal
from scheduler.runs.warnings import warn
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import DiskTask, DiskTaskState, LedgerTask, Run, VmRun, VmRunState, WorkState

logger = logging.getLogger(__name__)

_MODE: Final = TransportMode.STORAGE_SNAPSHOT
_WANTING: Final = frozenset({AUTOMATIC, str(_MODE)})


def freeze_on_storage(journal: Journal, run: Run, vm_run: VmRun, disks: Sequence[Opened]) -> bool:
    """Have a frozen VM's disks frozen by their storage too; False if that isn't wanted, or not possible."""
    if run.transport_mode not in _WANTING:
        return False
    obstacle = _obstacle(journal, disks)
    if obstacle is not None:
        if run.transport_mode == _MODE:
            warn(vm_run, f"no storage snapshot was made: {obstacle}")
        return False
    hold_disks(journal, run, vm_run, disks)
    by_datastore: dict[str, list[str]] = defaultdict(list)
    for disk in disks:
        by_datastore[disk.address.datastore or ""].append(disk.address.path or "")
    mark = mark_of(journal.session, vm_run.repository_run or "")
    for datastore, paths in sorted(by_datastore.items()):
        task = LedgerTask(
            id=f"{vm_run.id}.storage.{datastore}.{vm_run.attempt}.1",
            kind=TaskKind.STORAGE_SNAPSHOT_CREATE,
            title=f"{TaskKind.STORAGE_SNAPSHOT_CREATE} {vm_run.name} {datastore}",
            job=run.job,
            priority=Urgency.UPKEEP,
            body=StorageSnapshotCreate(datastore=datastore, mark=mark, paths=tuple(sorted(paths))),
            created_at=journal.now,
            run_id=run.id,
            vm_run_id=vm_run.id,
        )
        journal.open(task)
    return True


def record_creation(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """One of a VM's storage snapshots was made or not; with the last of them, its disks are opened."""
    session, body = journal.session, row.body
    vm_run = session.get_one(VmRun, row.vm_run_id)
    if not isinstance(body, StorageSnapshotCreate):
        raise TypeError(row.kind)
    if vm_run.state is not VmRunState.SNAPSHOTTING or vm_run.repository_run != body.mark.journal:
        journal.close(row)  # cancelled meanwhile; it may exist for all that
        open_removal(journal, body.datastore, body.mark, vm_run.name)
        return
    made = isinstance(outcome.result, StorageSnapshotCreateResult)
    row.state = WorkState.SUCCEEDED if made else WorkState.FAILED
    row.result = outcome.result
    if not made:
        row.failure = (
            outcome.failure or row.failure or TaskFailure(code="cancelled", what=f"{row.title}: cancelled")
        )
    journal.keep(row)
    session.flush()
    of_vm = select(LedgerTask).where(
        LedgerTask.vm_run_id == vm_run.id, LedgerTask.kind == TaskKind.STORAGE_SNAPSHOT_CREATE
    )
    rows = session.scalars(of_vm).all()
    if any(not one.state.final for one in rows):
        return
    failures = [one.failure for one in rows if one.state is not WorkState.SUCCEEDED]
    for one in rows:
        if failures and isinstance(one.body, StorageSnapshotCreate):
            open_removal(journal, one.body.datastore, one.body.mark, vm_run.name)
        journal.close(one)
    if failures:
        about = {"run": vm_run.run_id, "vm": vm_run.name}
        logger.warning("VM %s of run %s: %s", vm_run.name, vm_run.run_id, failures[0], extra=about)
        warn(vm_run, f"no storage snapshot was made: {failures[0]}")
    _open_held_disks(journal, vm_run, frozen=not failures)


def cancel_on_storage(journal: Journal, vm_run: VmRun) -> None:
    """Give up the storage snapshots of a VM run that is cancelled while they are made."""
    session = journal.session
    for row in session.scalars(
        select(LedgerTask).where(
            LedgerTask.vm_run_id == vm_run.id, LedgerTask.kind == TaskKind.STORAGE_SNAPSHOT_CREATE
        )
    ).all():
        if not row.state.final:
            journal.cancel(row)  # its outcome has the snapshot removed
        elif isinstance(row.body, StorageSnapshotCreate):
            journal.close(row)
            open_removal(journal, row.body.datastore, row.body.mark, vm_run.name)
    for disk in session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id)).all():
        if not disk.state.final:
            disk.state = DiskTaskState.CANCELLED


def _obstacle(journal: Journal, disks: Sequence[Opened]) -> str | None:
    """Why these disks can't be frozen by their storage, in a line."""
    for disk in disks:
        datastore = disk.address.datastore
        if datastore is None:
            return f"the datastore of {disk.key} isn't declared in the fleet file"
        unfit = dict(traits_of(disk.address, disk.size_bytes).unfit).get(_MODE)
        if unfit is not None:
            return f"{disk.key}: {unfit}"
        if datastore not in journal.storage:
            return f"no proxy that runs makes storage snapshots of datastore {datastore}"
    return None if disks else "it has no disks"


def _open_held_disks(journal: Journal, vm_run: VmRun, *, frozen: bool) -> None:
    """SNAPSHOTTING -> RUNNING: the disks are read from storage snapshots, or from the VM's own after all."""
    session = journal.session
    run = session.get_one(Run, vm_run.run_id)
    if frozen:
        thaw(journal, vm_run.repository_run)
    disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id).order_by(DiskTask.id)).all()
    mark = mark_of(session, vm_run.repository_run or "") if frozen else None
    for disk in disks:
        disk.address = disk.address.model_copy(update={"storage_snapshot": mark})
    try:
        repository = tasks.repository_if_any(session, run)
    except NoSuchRepositoryError as error:
        thaw(journal, vm_run.repository_run)
        for disk in disks:
            disk.state = DiskTaskState.FAILED
            if mark is not None and disk.address.datastore is not None:
                open_removal(journal, disk.address.datastore, mark, vm_run.name)
        end_vm_run(journal, vm_run, VmRunState.FAILED, str(error))
        return
    vm_run.state = VmRunState.RUNNING
    for number, disk in enumerate(disks):
        open_disk(journal, run, vm_run, disk, repository, configuration=number == 0)
