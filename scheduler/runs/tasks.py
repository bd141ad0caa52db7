"""The tasks that runs, restores and requests consist of, as rows of the journal."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session, object_session

from proxy_worker.contract.disks import DiskBackup, DiskBackupResult, DiskRestore
from proxy_worker.contract.gateway_address import SCHEME
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.specification import (
    FinishedDisk,
    InventoryScan,
    PointDelete,
    RepositoryAbandon,
    RepositoryCheck,
    RepositoryCollect,
    RepositoryCommit,
    RepositoryList,
    RepositoryProve,
)
from proxy_worker.contract.subjects import DiskIdentity, RepositoryReference, TransportPreference, VmIdentity
from proxy_worker.contract.using import BootWishes, PointBoot
from scheduler.dispatch.fleet import Urgency
from scheduler.state.declared import PROVE_DAYS
from scheduler.state.dispatching import FLEET
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTask,
    DispatchSettings,
    LedgerTask,
    Priority,
    Repository,
    Request,
    RequestKind,
    Restore,
    Run,
    VmRun,
)

_MIB = 1024 * 1024
_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
_URGENCY = {Priority.HIGH: Urgency.HIGH, Priority.REGULAR: Urgency.REGULAR}


def reference(repository: Repository | None, name: str) -> RepositoryReference:
    """How a specification names a repository; raises `NoSuchRepositoryError` when it is not declared any more."""
    if repository is None:
        raise NoSuchRepositoryError(
            f"repository {name!r}",
            why="no repository has that name",
            remedy="`scheduler repository list` shows them.",
        )
    networks: tuple[str, ...] = ()
    session = object_session(repository)
    if session is not None and repository.location.startswith(SCHEME):
        settings = session.get(DispatchSettings, FLEET)
        networks = (settings.preferred_networks or ()) if settings is not None else ()
    return RepositoryReference(
        name=name, location=repository.location, credential=repository.credential, preferred_networks=networks
    )


def repository_of(session: Session, run: Run) -> RepositoryReference:
    """A run's repository; raises as `reference` does."""
    return reference(session.get(Repository, run.repository), run.repository)


def repository_if_any(session: Session, run: Run) -> RepositoryReference | None:
    """The same; None for a run that replicates, which has none."""
    return repository_of(session, run) if run.replica is None else None


def scan_task(run: Run, datastore: str, now: float, *, machines: bool = False) -> LedgerTask:
    """Find the VMs of a datastore for a run; with `machines`, also what they are made of."""
    return LedgerTask(
        id=f"{run.id}.scan.{datastore}.{now * 1000:.0f}.1",
        kind=TaskKind.INVENTORY_SCAN,
        title=f"{TaskKind.INVENTORY_SCAN} {datastore}",
        job=run.job,
        priority=Urgency.UPKEEP,
        body=InventoryScan(datastore=datastore, machines=machines),
        created_at=now,
        run_id=run.id,
    )


def backup_task(
    run: Run, vm_run: VmRun, disk: DiskTask, repository: RepositoryReference, now: float, *, configuration: bool
) -> LedgerTask:
    """Back up a disk; with `configuration`, the VM's configuration files too."""
    body = DiskBackup(
        run=vm_run.repository_run or "",
        job=run.job,
        vm=_identity(vm_run),
        disk=_disk_identity(disk),
        transport=TransportPreference(
            mode="automatic" if run.transport_mode == "automatic" else TransportMode(run.transport_mode),
            failover_to_network=run.failover_to_network,
        ),
        repository=repository,
        level=run.level,
        changed_areas=disk.changed_areas if disk.parent is not None else None,
        areas_in_use=disk.changed_areas if disk.parent is None else None,
        parent=disk.parent,
        full_read_reason=disk.full_read_reason,
        configuration=vm_run.configuration if configuration else (),
    )
    return LedgerTask(
        id=f"{disk.id}.{vm_run.attempt}.{disk.tries}",
        kind=TaskKind.DISK_BACKUP,
        title=f"{TaskKind.DISK_BACKUP} {vm_run.name} {disk.disk_key}",
        job=run.job,
        priority=_URGENCY[run.priority],
        body=body,
        checkpoint=disk.checkpoint,
        created_at=now,
        run_id=run.id,
        vm_run_id=vm_run.id,
        disk_task_id=disk.id,
    )


def commit_task(
    run: Run, vm_run: VmRun, disks: Sequence[DiskTask], repository: RepositoryReference, now: float
) -> LedgerTask:
    """Make the disks of a VM run a restore point; each of them has a result."""
    finished = tuple(
        FinishedDisk(disk=_disk_identity(disk), fence=disk.fence or 0, sealed_result=disk.result.sealed_result)
        for disk in sorted(disks, key=lambda disk: disk.disk_key)
        if isinstance(disk.result, DiskBackupResult)
    )
    return LedgerTask(
        id=f"{vm_run.id}.commit.{vm_run.attempt}.1",
        kind=TaskKind.REPOSITORY_COMMIT,
        title=f"{TaskKind.REPOSITORY_COMMIT} {vm_run.name}",
        job=run.job,
        priority=Urgency.UPKEEP,
        body=RepositoryCommit(
            repository=repository,
            run=vm_run.repository_run or "",
            job=run.job,
            vm=_identity(vm_run),
            disks=finished,
            started_at=vm_run.copy_of.started_at if vm_run.copy_of is not None else vm_run.started_at,
            copy_of=vm_run.copy_of,
        ),
        created_at=now,
        run_id=run.id,
        vm_run_id=vm_run.id,
    )


def abandon_task(run: Run, vm_run: VmRun, repository: RepositoryReference, reason: str, now: float) -> LedgerTask:
    """Put a tombstone in the place of a VM run's restore point."""
    return LedgerTask(
        id=f"{vm_run.id}.abandon.{vm_run.attempt}.1",
        kind=TaskKind.REPOSITORY_ABANDON,
        title=f"{TaskKind.REPOSITORY_ABANDON} {vm_run.name}",
        job=run.job,
        priority=Urgency.UPKEEP,
        body=RepositoryAbandon(
            repository=repository, run=vm_run.repository_run or "", vm=_identity(vm_run), reason=reason
        ),
        created_at=now,
        run_id=run.id,
        vm_run_id=vm_run.id,
    )


def restore_task(restore: Restore, repository: RepositoryReference, now: float) -> LedgerTask:
    """Write a disk of a restore point on the proxy that was asked for."""
    return LedgerTask(
        id=f"{restore.id}.restore",
        kind=TaskKind.DISK_RESTORE,
        title=f"{TaskKind.DISK_RESTORE} {restore.vm_name} {restore.disk_key}",
        job=f"restore {restore.id}",
        priority=Urgency.RESTORE,
        body=DiskRestore(
            repository=repository,
            vm=VmIdentity(vm_id=restore.vm_id, name=restore.vm_name),
            run=restore.point,
            disk_key=restore.disk_key,
            target_path=restore.target_path,
            overwrite=restore.overwrite,
        ),
        pinned_proxy=restore.proxy,
        created_at=now,
        restore_id=restore.id,
    )


def request_task(
    request: Request,
    declared: Repository | None,
    now: float,
    *,
    linked: Sequence[RepositoryReference] = (),
) -> LedgerTask:
    """Rescan, check, scrub, collect or prove a repository, remove a restore point of it, or start a VM from one.

    Raises as `reference` does.
    """
    body: RepositoryList | RepositoryCheck | RepositoryCollect | RepositoryProve | PointDelete | PointBoot
    repository = reference(declared, request.repository)
    what = repository.name
    if request.kind is RequestKind.RESCAN:
        body = RepositoryList(repository=repository)
    elif declared is not None and request.kind is RequestKind.COLLECT:
        body = RepositoryCollect(repository=repository, bytes_per_s=_bytes_per_s(declared.collect_mib_per_s))
    elif declared is not None and request.kind is RequestKind.PROVE:
        body = RepositoryProve(
            repository=repository,
            linked=tuple(linked),
            period_s=(declared.prove_days or PROVE_DAYS) * _DAY_S,
            most_s=declared.prove_hours * _HOUR_S,
            bytes_per_s=_bytes_per_s(declared.prove_mib_per_s),
            samples=declared.prove_samples,
        )
    elif request.kind in {RequestKind.DELETE_POINT, RequestKind.BOOT_POINT}:
        vm = VmIdentity(vm_id=request.vm_id or "", name=request.vm_name or "")
        run = request.point or ""
        if request.kind is RequestKind.DELETE_POINT:
            body = PointDelete(repository=repository, vm=vm, run=run)
        else:
            body = PointBoot(repository=repository, vm=vm, run=run, wishes=request.boot or BootWishes())
        what = f"{vm.name} {run}"
    else:
        body = RepositoryCheck(repository=repository, scrub_only=request.kind is RequestKind.SCRUB)
    return LedgerTask(
        id=f"{request.id}.upkeep",
        kind=body.kind,
        title=f"{body.kind} {what}",
        job=f"upkeep {repository.name}",
        priority=Urgency.UPKEEP,
        body=body,
        created_at=now,
        request_id=request.id,
    )


def _bytes_per_s(mib_per_s: int | None) -> int | None:
    return mib_per_s * _MIB if mib_per_s else None


def _identity(vm_run: VmRun) -> VmIdentity:
    return VmIdentity(vm_id=vm_run.vm_id or "", name=vm_run.name)


def _disk_identity(disk: DiskTask) -> DiskIdentity:
    return DiskIdentity(key=disk.disk_key, address=disk.address, size_bytes=disk.size_bytes)
