"""Opening a VM run's disks: a row for each, and a task, or the pair of a replication.

The first disk has the VM's configuration files with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy_worker.contract.replication import ReplicaTarget
from proxy_worker.contract.subjects import DiskAddress, Extent, RepositoryReference
from scheduler.planning.places import TrackingMark
from scheduler.replication.disks import queue_disk
from scheduler.runs import tasks
from scheduler.runs.journal import Journal
from scheduler.state.models import DiskTask, DiskTaskState, Run, VmRun


@dataclass(frozen=True, slots=True)
class Opened:
    """A disk that can be read now."""

    key: str
    address: DiskAddress
    size_bytes: int | None
    changed_areas: tuple[Extent, ...] | None = None
    """Since `parent`; without one, those that have ever been written."""
    parent: str | None = None
    full_read_reason: str | None = None
    tracking: TrackingMark | None = None
    target: ReplicaTarget | None = None
    """Of a replication: what is written."""


def open_disks(
    journal: Journal, run: Run, vm_run: VmRun, disks: Iterable[Opened], repository: RepositoryReference | None
) -> None:
    """Open the tasks of each disk, in order of key, as retries find them; a replication has no repository."""
    for number, row in enumerate(_add(journal, run, vm_run, disks, DiskTaskState.QUEUED)):
        open_disk(journal, run, vm_run, row, repository, configuration=number == 0)


def open_disk(
    journal: Journal,
    run: Run,
    vm_run: VmRun,
    row: DiskTask,
    repository: RepositoryReference | None,
    *,
    configuration: bool,
) -> None:
    """Have a disk backed up, or brought to its replica."""
    if repository is None:
        queue_disk(journal, run, vm_run, row, configuration=configuration)
        return
    row.state = DiskTaskState.QUEUED
    journal.open(tasks.backup_task(run, vm_run, row, repository, journal.now, configuration=configuration))


def hold_disks(journal: Journal, run: Run, vm_run: VmRun, disks: Iterable[Opened]) -> None:
    """Keep what is known of the disks of a VM run that has to wait before its disks are opened."""
    _add(journal, run, vm_run, disks, DiskTaskState.WAITING)


def _add(
    journal: Journal, run: Run, vm_run: VmRun, disks: Iterable[Opened], state: DiskTaskState
) -> list[DiskTask]:
    rows = [
        DiskTask(
            id=f"{vm_run.id}.{disk.key}",
            vm_run_id=vm_run.id,
            run_id=run.id,
            disk_key=disk.key,
            address=disk.address,
            size_bytes=disk.size_bytes,
            changed_areas=disk.changed_areas,
            parent=disk.parent,
            full_read_reason=disk.full_read_reason,
            tracking=disk.tracking,
            target=disk.target,
            state=state,
            tries=1,
            attempts=0,
        )
        for disk in sorted(disks, key=lambda disk: disk.key)
    ]
    journal.session.add_all(rows)
    return rows
