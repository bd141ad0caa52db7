"""What Flower shows of a task: live progress while it runs, one line of figures at its end."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import OperationalError

from proxy_worker.contract.outcome import (
    DiskBackupResult,
    DiskProgress,
    DiskRestoreResult,
    InventoryScanResult,
    RepositoryAbandonResult,
    RepositoryCheckResult,
    RepositoryCommitResult,
    RepositoryListResult,
    TaskResult,
)

log = logging.getLogger(__name__)

MIB = 1 << 20


def progress_line(progress: DiskProgress) -> str:
    """E.g. `37% 412 MiB/s`."""
    share = progress.processed_bytes / progress.size_bytes if progress.size_bytes else 1.0
    return f"{share:.0%} " + ("paused" if progress.paused else f"{progress.rate / MIB:.0f} MiB/s")


def announce_progress(app: Celery, hostname: str, uuid: str, title: str, progress: DiskProgress) -> None:
    """Send a `task-progress` event; one that can't be sent is not missed."""
    try:
        with app.events.default_dispatcher(hostname=hostname) as dispatcher:
            dispatcher.send("task-progress", uuid=uuid, name=title, result=progress_line(progress), retry=False)
    except (OperationalError, OSError) as error:
        log.debug("progress event of %s: %s", title, error)


def figures(result: TaskResult) -> str:
    """One line about a finished task."""
    match result:
        case DiskBackupResult(report=report):
            read, stored = report.read_bytes / MIB, report.stored_bytes / MIB
            line = f"{read:.0f} MiB read by {report.mode}, {stored:.1f} MiB stored, {report.duration_seconds:.1f} s"
        case DiskRestoreResult(report=report):
            line = f"{report.stored_bytes / MIB:.0f} MiB restored, {report.duration_seconds:.1f} s"
        case InventoryScanResult(vms=vms):
            line = f"{len(vms)} VMs"
        case RepositoryCommitResult(point=point):
            line = f"restore point {point.run} of {point.vm.name}"
        case RepositoryAbandonResult(committed=committed):
            line = "too late to abandon, a restore point exists" if committed else "abandoned"
        case RepositoryListResult(points=points):
            line = f"{len(points)} restore points"
        case RepositoryCheckResult(packs=packs, damage=damage):
            line = f"{packs} packs, {len(damage)} damaged objects"
    return line
