"""What each kind of task does on this proxy. The only place where a specification meets movers and repositories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, Final

from proxy_worker.contract.disks import DiskBackup, DiskBackupResult, DiskRestore, DiskRestoreResult
from proxy_worker.contract.errors import CancelledError, NotFoundError
from proxy_worker.contract.names import TaskKind, TrafficKind
from proxy_worker.contract.outcome import (
    InventoryScanResult,
    PointDisk,
    PointSummary,
    RepositoryAbandonResult,
    RepositoryCheckResult,
    RepositoryCommitResult,
    RepositoryListResult,
    StoreSpace,
    TaskResult,
)
from proxy_worker.contract.specification import (
    InventoryScan,
    RepositoryAbandon,
    RepositoryCheck,
    RepositoryCommit,
    RepositoryList,
    TaskBody,
)
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.ledger import Claim
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.control import Verdict
from proxy_worker.mover.restore import restore_disk
from proxy_worker.node.bench import Bench
from proxy_worker.node.booting import boot_point
from proxy_worker.node.configuration_files import read_configuration_file
from proxy_worker.node.copying import copy_disk, plan_copies
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.node.replicas import (
    make_replica_point,
    mark_replica,
    open_replica,
    remove_replica_point,
    revert_replica,
)
from proxy_worker.node.replication import receive_disk, send_disk
from proxy_worker.node.served_points import release_point, serve_point
from proxy_worker.node.storage import create_storage_snapshot, list_storage_snapshots, remove_storage_snapshot
from proxy_worker.node.traffic import kept_to_share
from proxy_worker.node.upkeep import collect_repository, delete_point, prove_repository
from proxy_worker.node.vm_creation import create_vm
from proxy_worker.repository.check import check
from proxy_worker.repository.errors import ShutOutError
from proxy_worker.repository.examination import record_findings
from proxy_worker.repository.points import Point
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store.tally import RequestMeter
from proxy_worker.transport.inventory import scan_datastore
from proxy_worker.transport.open_to_write import open_to_write
from proxy_worker.transport.select import open_disk


class DatastoreNotReachedError(NotFoundError):
    """This proxy has no folder for that datastore."""


def perform(body: TaskBody, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> TaskResult:
    """Do what a verified specification asks for; raises whatever foreseeable error ends it."""
    return BODIES[body.kind](body, bench, claim, keeper)


def _back_up(body: DiskBackup, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> DiskBackupResult:
    repository = bench.repository(body.repository, "write")
    files = tuple(read_configuration_file(address, bench) for address in body.configuration)
    source_of = open_disk(
        body.disk.address,
        body.transport,
        bench.configuration.connections,
        bench.vsphere,
        size_bytes=body.disk.size_bytes,
    )
    with source_of as source, kept_to_share(bench, claim, TrafficKind.BACKUP, body.repository, body.job) as pacing:
        return back_up_disk(
            source,
            repository,
            body,
            fence=claim.fence.number,
            checkpoint=claim.checkpoint,
            control=keeper,
            configuration=files,
            pacing=pacing,
        )


def _restore(body: DiskRestore, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> DiskRestoreResult:
    repository = bench.repository(body.repository, "read")
    job = f"restore of {body.vm.vm_id}"  # of the same VM's disks together
    with kept_to_share(bench, claim, TrafficKind.RESTORE, body.repository, job) as pacing:
        if body.target is None:
            return restore_disk(repository, body, keeper, pacing=pacing)
        with open_to_write(body.target, bench.configuration.connections, bench.vsphere) as sink:
            return restore_disk(repository, body, keeper, sink, pacing)


def _scan(body: InventoryScan, bench: Bench, *_: object) -> InventoryScanResult:
    connection = bench.configuration.datastores.get(body.datastore)
    if connection is None or connection.path is None:
        raise DatastoreNotReachedError(
            f"datastore {body.datastore}",
            why=f"proxy {bench.identity.name} has no path to it",
            remedy=f"Set `path` under [datastores.{body.datastore}] in its proxy.toml.",
        )
    return InventoryScanResult(vms=scan_datastore(body.datastore, connection.path, machines=body.machines))


def _commit(body: RepositoryCommit, bench: Bench, *_: object) -> RepositoryCommitResult:
    point = bench.repository(body.repository, "write").commit(
        vm=body.vm,
        run=body.run,
        job=body.job,
        disks=[(stored.disk, stored.fence, stored.sealed_result) for stored in body.disks],
        started_at=body.started_at,
        original=body.copy_of,
    )
    return RepositoryCommitResult(point=_summary(point), space=_space(body.repository))


def _abandon(body: RepositoryAbandon, bench: Bench, *_: object) -> RepositoryAbandonResult:
    repository = bench.repository(body.repository, "write")
    return RepositoryAbandonResult(
        committed=repository.abandon(vm_id=body.vm.vm_id, run=body.run, reason=body.reason)
    )


def _list(body: RepositoryList, bench: Bench, *_: object) -> RepositoryListResult:
    repository = bench.repository(body.repository, "write")
    points = tuple(_summary(point) for point in repository.points())
    damaged = repository.damaged_points.items()
    # What was committed by somebody who was shut out since counts no more.
    names = [name.split("/") for name, damage in damaged if not isinstance(damage, ShutOutError)]
    return RepositoryListResult(
        repository_id=repository.id,
        points=points,
        unreadable=tuple((vm_id, run) for _, vm_id, run in names),
        space=_space(body.repository),
    )


def _check(body: RepositoryCheck, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> RepositoryCheckResult:
    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop")

    if body.scrub_only:
        store = bench.store(body.repository)
        meter = RequestMeter(store)
        report = scrub(store, after_pack=go_on)
    else:
        access = bench.repository(body.repository, "read").access
        meter = RequestMeter(access.store)
        report = check(access, after_pack=go_on)
        record_findings(access, report.findings)
    return RepositoryCheckResult(
        packs=report.packs,
        read_bytes=report.read_bytes,
        duration_seconds=report.duration_seconds,
        damage=tuple(map(str, report.findings)),
        requests=meter.read(),
    )


def _space(repository: RepositoryReference) -> StoreSpace | None:
    try:
        usage = shutil.disk_usage(repository.location)
    except OSError:
        return None  # nothing that the task is about
    return StoreSpace(size_bytes=usage.total, free_bytes=usage.free)


BODIES: Final[dict[TaskKind, Callable[[Any, Bench, Claim, LeaseKeeper], TaskResult]]] = {
    TaskKind.DISK_BACKUP: _back_up,
    TaskKind.DISK_RESTORE: _restore,
    TaskKind.DISK_COPY: copy_disk,
    TaskKind.COPY_PLAN: plan_copies,
    TaskKind.VM_CREATE: create_vm,
    TaskKind.INVENTORY_SCAN: _scan,
    TaskKind.REPOSITORY_COMMIT: _commit,
    TaskKind.REPOSITORY_ABANDON: _abandon,
    TaskKind.REPOSITORY_LIST: _list,
    TaskKind.REPOSITORY_CHECK: _check,
    TaskKind.REPOSITORY_COLLECT: collect_repository,
    TaskKind.REPOSITORY_PROVE: prove_repository,
    TaskKind.POINT_DELETE: delete_point,
    TaskKind.POINT_BOOT: boot_point,
    TaskKind.POINT_SERVE: serve_point,
    TaskKind.POINT_RELEASE: release_point,
    TaskKind.STORAGE_SNAPSHOT_CREATE: create_storage_snapshot,
    TaskKind.STORAGE_SNAPSHOT_REMOVE: remove_storage_snapshot,
    TaskKind.STORAGE_SNAPSHOT_LIST: list_storage_snapshots,
    TaskKind.DISK_RECEIVE: receive_disk,
    TaskKind.DISK_REPLICATE: send_disk,
    TaskKind.REPLICA_OPEN: open_replica,
    TaskKind.REPLICA_POINT: make_replica_point,
    TaskKind.REPLICA_REMOVE_POINT: remove_replica_point,
    TaskKind.REPLICA_REVERT: revert_replica,
    TaskKind.REPLICA_MARK: mark_replica,
}


def _summary(point: Point) -> PointSummary:
    return PointSummary(
        vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
        run=point.run,
        job=point.job,
        created_at=point.created_at,
        disks=tuple(
            PointDisk(key=disk.key, size_bytes=disk.size_bytes, stored_bytes=disk.stored_bytes)
            for disk in point.disks
        ),
    )
