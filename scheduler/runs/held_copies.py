"""Copies of one VM's restore points go one after the other, oldest first: each knows from the last what changed."""

from __future__ import annotations

from sqlalchemy import select

from scheduler.runs.copy_tasks import copy_task
from scheduler.runs.journal import Journal
from scheduler.runs.tasks import repository_of
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import DiskTask, DiskTaskState, Run, VmRun, VmRunState


def release_held(journal: Journal, run: Run) -> None:
    """Open the disks of each VM's next restore point, unless one of that VM is being copied."""
    session = journal.session
    if run.cancel_requested:
        return
    final = [state for state in VmRunState if state.final]
    held = select(DiskTask.vm_run_id).where(
        DiskTask.run_id == run.id, DiskTask.state == DiskTaskState.WAITING, DiskTask.retry_at.is_(None)
    )
    under_way = select(VmRun).where(VmRun.run_id == run.id, VmRun.state.not_in(final))
    busy = under_way.where(VmRun.id.not_in(held)).with_only_columns(VmRun.vm_id)
    idle = session.scalars(under_way.where(VmRun.id.in_(held), VmRun.vm_id.not_in(busy))).all()
    begun: set[str | None] = set()
    for vm_run in sorted(idle, key=_age):
        if vm_run.vm_id not in begun and _open(journal, run, vm_run):
            begun.add(vm_run.vm_id)


def _open(journal: Journal, run: Run, vm_run: VmRun) -> bool:
    session = journal.session
    disks = session.scalars(select(DiskTask).where(DiskTask.vm_run_id == vm_run.id).order_by(DiskTask.id)).all()
    try:
        target = repository_of(session, run)
        tasks = [copy_task(journal, run, vm_run, disk, target) for disk in disks]
    except NoSuchRepositoryError as error:
        vm_run.state, vm_run.reason, vm_run.ended_at = VmRunState.FAILED, str(error), journal.now
        for disk in disks:
            disk.state = DiskTaskState.CANCELLED
        return False
    for disk, task in zip(disks, tasks, strict=True):
        disk.state = DiskTaskState.QUEUED
        journal.open(task)
    return True


def _age(vm_run: VmRun) -> float:
    return vm_run.copy_of.created_at if vm_run.copy_of is not None else 0.0
