"""What Flower shows of a task: live progress while it runs, one line of figures at its end."""

from __future__ import annotations

import logging
import threading
from typing import assert_never

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from proxy_worker.contract.copying import CopyPlanResult, CopyState
from proxy_worker.contract.disks import DiskBackupResult, DiskRestoreResult
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.outcome import (
    InventoryScanResult,
    PointDeleteResult,
    RepositoryAbandonResult,
    RepositoryCheckResult,
    RepositoryCollectResult,
    RepositoryCommitResult,
    RepositoryListResult,
    RepositoryProveResult,
    StorageSnapshotCreateResult,
    StorageSnapshotListResult,
    StorageSnapshotRemoveResult,
    TaskResult,
    VmCreateResult,
)
from proxy_worker.contract.replication_outcome import (
    DiskReceiveResult,
    DiskReplicateResult,
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.contract.using import PointBootResult, PointReleaseResult, PointServeResult

log = logging.getLogger(__name__)

MIB = 1 << 20


def progress_line(progress: DiskProgress) -> str:
    """E.g. `37% 412 MiB/s`."""
    share = progress.processed_bytes / progress.size_bytes if progress.size_bytes else 1.0
    return f"{share:.0%} " + ("paused" if progress.paused else f"{progress.rate / MIB:.0f} MiB/s")


class Announcer:
    """Sends `task-progress` events from a thread of its own: a broker that hangs must hold up nobody.

    Only the newest progress counts, and one that can't be sent is not missed.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._changed = threading.Condition()
        self._waiting: tuple[str, dict[str, str]] | None = None
        self._thread: threading.Thread | None = None

    def announce(self, hostname: str, uuid: str, title: str, progress: DiskProgress) -> None:
        """Send it soon, unless there is newer progress by then; returns at once."""
        with self._changed:
            self._waiting = hostname, {"uuid": uuid, "name": title, "result": progress_line(progress)}
            self._changed.notify()
            if self._thread is None:  # not before the fork
                self._thread = threading.Thread(target=self._send, name="announcer", daemon=True)
                self._thread.start()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                event, self._waiting = self._waiting, None
            if event is None:
                continue
            hostname, fields = event
            try:
                with self._app.events.default_dispatcher(hostname=hostname) as dispatcher:
                    dispatcher.send("task-progress", retry=False, **fields)
            except (OperationalError, RedisError, OSError) as error:
                log.debug("progress event of %s: %s", fields["name"], error)


def figures(result: TaskResult) -> str:
    """One line about a finished task."""
    match result:
        case DiskBackupResult(report=report):
            read, stored = report.read_bytes / MIB, report.stored_bytes / MIB
            line = f"{read:.0f} MiB read by {report.mode}, {stored:.1f} MiB stored, {report.duration_seconds:.1f} s"
        case DiskRestoreResult(report=report):
            line = f"{report.stored_bytes / MIB:.0f} MiB restored, {report.duration_seconds:.1f} s"
        case VmCreateResult(name=name, disks=disks):
            line = f"VM {name} made with {len(disks)} disks"
        case InventoryScanResult(vms=vms):
            line = f"{len(vms)} VMs"
        case CopyPlanResult(points=planned):
            missing = sum(point.state is CopyState.MISSING for point in planned)
            line = f"{missing} of {len(planned)} restore points to copy"
        case (
            RepositoryCommitResult()
            | RepositoryAbandonResult()
            | RepositoryListResult()
            | RepositoryCheckResult()
            | RepositoryProveResult()
            | RepositoryCollectResult()
            | PointDeleteResult()
        ):
            line = _figures_of_repository(result)
        case PointBootResult() | PointServeResult() | PointReleaseResult():
            line = _figures_of_use(result)
        case StorageSnapshotCreateResult() | StorageSnapshotRemoveResult() | StorageSnapshotListResult():
            line = _figures_of_storage(result)
        case DiskReceiveResult(written_bytes=written):
            line = f"{written / MIB:.1f} MiB of the replica written"
        case DiskReplicateResult(report=report):
            line = (
                f"{report.read_bytes / MIB:.0f} MiB read by {report.mode}, {report.stored_bytes / MIB:.1f} MiB sent"
            )
        case (
            ReplicaOpenResult()
            | ReplicaPointResult()
            | ReplicaRemovePointResult()
            | ReplicaRevertResult()
            | ReplicaMarkResult()
        ):
            line = _figures_of_replica(result)
        case _:
            assert_never(result)
    return line


def _figures_of_repository(
    result: RepositoryCommitResult
    | RepositoryAbandonResult
    | RepositoryListResult
    | RepositoryCheckResult
    | RepositoryProveResult
    | RepositoryCollectResult
    | PointDeleteResult,
) -> str:
    match result:
        case RepositoryCommitResult(point=point):
            line = f"restore point {point.run} of {point.vm.name}"
        case RepositoryAbandonResult(committed=committed):
            line = "too late to abandon, a restore point exists" if committed else "abandoned"
        case RepositoryListResult(points=points):
            line = f"{len(points)} restore points"
        case RepositoryCheckResult(packs=packs, damage=damage) | RepositoryProveResult(packs=packs, damage=damage):
            line = f"{packs} packs, {len(damage)} damaged objects"
        case RepositoryCollectResult(freed_bytes=freed, freed_packs=packs, dry_run=dry_run):
            line = f"{freed / MIB:.1f} MiB in {packs} packs {'to free' if dry_run else 'freed'}"
        case PointDeleteResult(found=found):
            line = "restore point removed" if found else "there was no such restore point"
        case _:
            assert_never(result)
    return line


def _figures_of_use(result: PointBootResult | PointServeResult | PointReleaseResult) -> str:
    match result:
        case PointBootResult(prompt=prompt, why=why):
            line = f"'{prompt}'" if prompt is not None else why
        case PointServeResult(host=host, disks=disks):
            line = f"{len(disks)} disks served at {host}"
        case PointReleaseResult(written_bytes=written):
            line = f"served no more, {written / MIB:.1f} MiB written forgotten"
        case _:
            assert_never(result)
    return line


def _figures_of_storage(
    result: StorageSnapshotCreateResult | StorageSnapshotRemoveResult | StorageSnapshotListResult,
) -> str:
    match result:
        case StorageSnapshotCreateResult(duration_seconds=duration_s):
            line = f"storage snapshot made in {duration_s:.2f} s"
        case StorageSnapshotRemoveResult(existed=existed):
            line = "storage snapshot removed" if existed else "storage snapshot was gone already"
        case StorageSnapshotListResult(journals=journals):
            line = f"{len(journals)} storage snapshots"
        case _:
            assert_never(result)
    return line


def _figures_of_replica(
    result: ReplicaOpenResult
    | ReplicaPointResult
    | ReplicaRemovePointResult
    | ReplicaRevertResult
    | ReplicaMarkResult,
) -> str:
    match result:
        case ReplicaOpenResult(points=points):
            line = f"the replica has {len(points)} restore points"
        case ReplicaPointResult(point=point):
            line = f"restore point {point.run} of the replica"
        case ReplicaRemovePointResult(found=found):
            line = "restore point removed" if found else "there was no such restore point"
        case ReplicaRevertResult(condition=condition):
            line = f"the replica is reverted, and {condition.replace('_', ' ')}"
        case ReplicaMarkResult(before=before):
            line = f"the replica was {before.replace('_', ' ')}"
        case _:
            assert_never(result)
    return line
