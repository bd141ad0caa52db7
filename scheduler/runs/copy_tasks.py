"""The tasks that runs of copy jobs consist of besides commits and tombstones, as rows of the journal."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from proxy_worker.contract.copying import CopyPlan, DiskCopy, PointToCopy
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from scheduler.dispatch.fleet import Urgency
from scheduler.planning.copies import CopyTerms, KnownPoint
from scheduler.runs.journal import Journal
from scheduler.runs.tasks import reference
from scheduler.state.models import DiskTask, LedgerTask, Repository, Run, VmRun


def source_of(session: Session, terms: CopyTerms) -> RepositoryReference:
    """The repository that is copied from; raises as `reference` does."""
    return reference(session.get(Repository, terms.repository), terms.repository)


def plan_task(
    journal: Journal,
    run: Run,
    points: Sequence[KnownPoint],
    source: RepositoryReference,
    target: RepositoryReference,
    *,
    number: int,
) -> LedgerTask:
    """Find out which of these restore points the target lacks: question `number` of the run."""
    asked = tuple(
        PointToCopy(vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name), point=point.point) for point in points
    )
    return LedgerTask(
        id=f"{run.id}.plan.{number}.{journal.now * 1000:.0f}.1",
        kind=TaskKind.COPY_PLAN,
        title=f"{TaskKind.COPY_PLAN} {source.name} {target.name}",
        job=run.job,
        priority=Urgency.UPKEEP,
        body=CopyPlan(job=run.job, source=source, repository=target, points=asked),
        created_at=journal.now,
        run_id=run.id,
    )


def copy_task(journal: Journal, run: Run, vm_run: VmRun, disk: DiskTask, target: RepositoryReference) -> LedgerTask:
    """Copy a disk of a run that copies; raises as `reference` does when the source isn't declared any more."""
    if run.copy_from is None or vm_run.copy_of is None:
        raise ValueError(f"VM run {vm_run.id} copies nothing")
    body = DiskCopy(
        job=run.job,
        vm=VmIdentity(vm_id=vm_run.vm_id or "", name=vm_run.name),
        disk_key=disk.disk_key,
        size_bytes=disk.size_bytes,
        source=source_of(journal.session, run.copy_from),
        original=vm_run.copy_of,
        repository=target,
        run=vm_run.repository_run or "",
        level=run.level,
    )
    return LedgerTask(
        id=f"{disk.id}.{vm_run.attempt}.{disk.tries}",
        kind=TaskKind.DISK_COPY,
        title=f"{TaskKind.DISK_COPY} {vm_run.name} {disk.disk_key}",
        job=run.job,
        priority=Urgency.COPY,
        body=body,
        checkpoint=disk.checkpoint,
        created_at=journal.now,
        run_id=run.id,
        vm_run_id=vm_run.id,
        disk_task_id=disk.id,
    )
