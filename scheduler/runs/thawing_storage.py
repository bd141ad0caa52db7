"""Storage snapshots that nobody needs any more: removed, tried again until they are, and looked for after a crash.

A task in the journal is a removal's own journal: it is opened with what makes the snapshot superfluous, and closed
when the snapshot is gone. Nothing waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import StorageSnapshotListResult, StorageSnapshotRemoveResult
from proxy_worker.contract.specification import StorageSnapshotCreate, StorageSnapshotList, StorageSnapshotRemove
from proxy_worker.contract.subjects import StorageSnapshotMark
from scheduler.dispatch.fleet import Urgency
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.state.models import DiskTask, LedgerTask, ServiceMark, VmRun, VmRunState, WorkState

logger = logging.getLogger(__name__)

AGAIN_S: Final = 300.0
"""How soon a removal that failed is tried again: the snapshot grows with what VMs write."""


def mark_of(session: Session, entry: str) -> StorageSnapshotMark:
    """What a storage snapshot is marked with, for an entry in the journal of snapshots."""
    installation = session.get_one(ServiceMark, 1).installation or ""
    return StorageSnapshotMark(installation=installation, journal=entry)


def thaw_storage(journal: Journal, vm_run: VmRun) -> None:
    """Have the storage snapshots removed that a VM run's disks were read from, if there were any."""
    addresses = journal.session.scalars(select(DiskTask.address).where(DiskTask.vm_run_id == vm_run.id))
    kept = {(one.datastore, one.storage_snapshot) for one in addresses if one.storage_snapshot is not None}
    for datastore, mark in sorted(kept, key=str):
        if datastore is not None and mark is not None:
            open_removal(journal, datastore, mark, vm_run.name)


def open_removal(journal: Journal, datastore: str, mark: StorageSnapshotMark, vm_name: str) -> None:
    """Have a storage snapshot removed, unless it is being removed already."""
    name = f"storage.{mark.journal}.{datastore}"
    for one in journal.session.scalars(
        select(LedgerTask).where(LedgerTask.kind == TaskKind.STORAGE_SNAPSHOT_REMOVE)
    ):
        if one.body == StorageSnapshotRemove(datastore=datastore, mark=mark):
            return
    task = LedgerTask(
        id=f"{name}.{journal.now:.3f}.1",
        kind=TaskKind.STORAGE_SNAPSHOT_REMOVE,
        title=f"{TaskKind.STORAGE_SNAPSHOT_REMOVE} {vm_name} {datastore}",
        job=f"upkeep {datastore}",
        priority=Urgency.UPKEEP,
        body=StorageSnapshotRemove(datastore=datastore, mark=mark),
        created_at=journal.now,
    )
    journal.open(task)


def look_for_left(journal: Journal, datastores: Iterable[str]) -> None:
    """Have our storage snapshots of these datastores listed, for those that no journal knows."""
    installation = journal.session.get_one(ServiceMark, 1).installation or ""
    for datastore in sorted(datastores):
        task = LedgerTask(
            id=f"storage.{datastore}.list.{journal.now:.3f}.1",
            kind=TaskKind.STORAGE_SNAPSHOT_LIST,
            title=f"{TaskKind.STORAGE_SNAPSHOT_LIST} {datastore}",
            job=f"upkeep {datastore}",
            priority=Urgency.UPKEEP,
            body=StorageSnapshotList(datastore=datastore, installation=installation),
            created_at=journal.now,
        )
        journal.open(task)


def record_removal(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """A snapshot is gone, or is tried again until it is."""
    if isinstance(outcome.result, StorageSnapshotRemoveResult):
        journal.close(row)
        return
    logger.warning("%s: %s", row.title, outcome.failure or "cancelled")
    row.state, row.failure, row.cancelling = WorkState.WAITING, outcome.failure, False
    row.retry_at = journal.now + AGAIN_S
    journal.keep(row)


def record_list(journal: Journal, row: LedgerTask, outcome: Outcome) -> None:
    """Have removed what no VM run needs: a lost database knew of it, or a proxy made it that was lost meanwhile."""
    journal.close(row)
    if not isinstance(outcome.result, StorageSnapshotListResult) or not isinstance(row.body, StorageSnapshotList):
        return
    session = journal.session
    needed = set(
        session.scalars(
            select(VmRun.repository_run).where(VmRun.state.in_((VmRunState.SNAPSHOTTING, VmRunState.RUNNING)))
        )
    )
    making = select(LedgerTask).where(LedgerTask.kind == TaskKind.STORAGE_SNAPSHOT_CREATE)
    needed |= {
        one.body.mark.journal for one in session.scalars(making) if isinstance(one.body, StorageSnapshotCreate)
    }
    for entry in sorted(set(outcome.result.journals) - needed):
        logger.warning("datastore %s has storage snapshot %s of ours left", row.body.datastore, entry)
        open_removal(journal, row.body.datastore, mark_of(session, entry), entry)
