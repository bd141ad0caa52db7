"""The tasks that proxies do for a restore, as rows of the journal."""

from __future__ import annotations

from collections.abc import Mapping

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.specification import VmCreate, VmPlace
from proxy_worker.contract.subjects import DiskKey, RepositoryReference, VcenterReference, VmIdentity
from proxy_worker.contract.using import PointRelease, PointServe
from scheduler.dispatch.fleet import Urgency
from scheduler.state.models import LedgerTask, RestoredDisk, VmRestore, VmRestoreKind


def create_task(
    restore: VmRestore,
    place: VmPlace,
    repository: RepositoryReference,
    vcenter: VcenterReference,
    *,
    installation: str,
    declared: Mapping[str, str],
    disk_files: dict[DiskKey, str],
    now: float,
) -> LedgerTask:
    """Make the VM, by a proxy that may read its configuration; `disk_files` are disks that there are already."""
    return LedgerTask(
        id=f"{restore.id}.create",
        kind=TaskKind.VM_CREATE,
        title=f"{TaskKind.VM_CREATE} {restore.target_name}",
        job=job_of(restore),
        priority=Urgency.RESTORE,
        body=VmCreate(
            repository=repository,
            vm=_identity(restore),
            run=restore.point,
            vcenter=vcenter,
            mark=f"{installation}/{restore.id}",
            name=restore.target_name,
            instance_uuid=restore.instance_uuid,
            same_machine=restore.same_machine,
            place=place,
            disk_datastores=restore.wishes.disk_datastores,
            disk_files=disk_files,
            networks=restore.wishes.networks,
            disk_format=restore.wishes.disk_format,
            declared=dict(declared),
        ),
        created_at=now,
        vm_restore_id=restore.id,
    )


def write_task(restore: VmRestore, disk: RestoredDisk, repository: RepositoryReference, now: float) -> LedgerTask:
    """Write one disk, by a proxy that reaches it."""
    return LedgerTask(
        id=task_id_of(disk),
        kind=TaskKind.DISK_RESTORE,
        title=f"{TaskKind.DISK_RESTORE} {restore.target_name} {disk.disk_key}",
        job=job_of(restore),
        priority=Urgency.RESTORE,
        body=DiskRestore(
            repository=repository,
            vm=_identity(restore),
            run=restore.point,
            disk_key=disk.disk_key,
            target=disk.target,
            target_is_blank=disk.blank,
            changed_areas=disk.changed_areas,
            full_write_reason=disk.full_write_reason if restore.kind is VmRestoreKind.OVERWRITE else None,
        ),
        created_at=now,
        vm_restore_id=restore.id,
    )


def serve_task(restore: VmRestore, repository: RepositoryReference, now: float) -> LedgerTask:
    """Serve the restore point's disks, by a proxy that hosts can mount from."""
    return LedgerTask(
        id=f"{restore.id}.serve",
        kind=TaskKind.POINT_SERVE,
        title=f"{TaskKind.POINT_SERVE} {restore.target_name}",
        job=job_of(restore),
        priority=Urgency.RESTORE,
        body=PointServe(repository=repository, vm=_identity(restore), run=restore.point, share=restore.share or ""),
        created_at=now,
        vm_restore_id=restore.id,
    )


def release_task(restore: VmRestore, repository: RepositoryReference, now: float) -> LedgerTask:
    """Serve them no more, by the proxy that does."""
    return LedgerTask(
        id=f"{restore.id}.release.1",
        kind=TaskKind.POINT_RELEASE,
        title=f"{TaskKind.POINT_RELEASE} {restore.target_name}",
        job=job_of(restore),
        priority=Urgency.RESTORE,
        body=PointRelease(repository=repository, share=restore.share or ""),
        pinned_proxy=restore.served_by,
        created_at=now,
        vm_restore_id=restore.id,
    )


def task_id_of(disk: RestoredDisk) -> str:
    """The id of the present try at writing a disk."""
    return f"{disk.id}.{disk.tries}"


def job_of(restore: VmRestore) -> str:
    """What fairness counts a restore's tasks by."""
    return f"restore {restore.id}"


def _identity(restore: VmRestore) -> VmIdentity:
    return VmIdentity(vm_id=restore.vm_id, name=restore.vm_name)
