"""What the database says of runs, jobs, restore points, repositories and notifications, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import Metric
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TaskKind
from scheduler.monitoring.gauges import Sample, gauge
from scheduler.reports.run_report import RunReport, run_report
from scheduler.state.models import (
    Delivery,
    DeliveryState,
    Job,
    LedgerTask,
    Notification,
    Point,
    Repository,
    Run,
    RunState,
    ServiceMark,
    SnapshotEntry,
    SnapshotState,
    WorkState,
)
from scheduler.state.proven import proof_figures

_BOTTLENECKS = ("source", "proxy", "network", "target")
_FATES = ("size", "read", "zero", "unchanged", "duplicate", "stored")


def runs_of(session: Session) -> Iterator[Metric]:
    """Runs that are under way."""
    counted = select(Run.state, func.count()).group_by(Run.state)
    counts = {state: count for state, count in session.execute(counted)}  # noqa: C416 - rows aren't typed as pairs
    under_way = [state for state in RunState if not state.final]
    samples = [((state.value,), counts.get(state, 0)) for state in under_way]
    yield gauge("proxyfleet_runs", "Runs that are under way, by state.", ["state"], samples)


def open_tasks(session: Session) -> dict[TaskKind, int]:
    """How many tasks the ledger holds or is to be given, by kind."""
    counted = select(LedgerTask.kind, func.count()).where(LedgerTask.state == WorkState.RUNNING)
    return {kind: count for kind, count in session.execute(counted.group_by(LedgerTask.kind))}  # noqa: C416 - as above


class JobMetrics:
    """Jobs and their last runs. A run's figures are added up once: its disks may be thousands."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, RunReport]] = {}
        """By job: when its last run ended, and that run."""

    def collect(self, session: Session) -> Iterator[Metric]:
        """Every declared job, and the last run of those that had one."""
        jobs = session.scalars(select(Job).order_by(Job.name)).all()
        scheduled = [((job.name,), float(job.enabled and job.cron is not None)) for job in jobs]
        yield gauge("proxyfleet_job_scheduled", "1 if a job starts by itself.", ["backup_job"], scheduled)
        yield gauge(
            "proxyfleet_job_last_success_timestamp_seconds",
            "When the last run of a job that succeeded whole ended.",
            ["backup_job"],
            self._successes(session, [job.name for job in jobs]),
        )
        reports = [report for job in jobs if (report := self._last(session, job.name)) is not None]
        yield from _last_runs(reports)

    def _last(self, session: Session, job: str) -> RunReport | None:
        final = [state for state in RunState if state.final]
        newest = select(Run).where(Run.job == job, Run.state.in_(final)).order_by(Run.ended_at.desc()).limit(1)
        run = session.scalars(newest).first()
        if run is None or run.ended_at is None:
            return None
        known = self._known.get(job)
        if known is None or known[0] != run.ended_at:
            known = self._known[job] = (run.ended_at, run_report(session, run))
        return known[1]

    def _successes(self, session: Session, jobs: list[str]) -> list[Sample]:
        newest = select(Run.job, func.max(Run.ended_at)).where(Run.state == RunState.SUCCEEDED).group_by(Run.job)
        return [((job,), ended) for job, ended in session.execute(newest) if job in jobs and ended is not None]


def _last_runs(reports: Iterable[RunReport]) -> Iterator[Metric]:
    reports = list(reports)
    final = [state.value for state in RunState if state.final]
    yield gauge(
        "proxyfleet_job_last_run_state",
        "1 for the state in which the last run of a job ended.",
        ["backup_job", "state"],
        [((one.job, state), float(one.state == state)) for one in reports for state in final],
    )
    yield gauge(
        "proxyfleet_job_last_run_end_timestamp_seconds",
        "When the last run of a job ended.",
        ["backup_job"],
        [((one.job,), one.ended or 0.0) for one in reports],
    )
    yield gauge(
        "proxyfleet_job_last_run_duration_seconds",
        "How long the last run of a job took.",
        ["backup_job"],
        [((one.job,), one.duration_seconds or 0.0) for one in reports],
    )
    yield gauge(
        "proxyfleet_job_last_run_bytes",
        "Bytes of the disks of a job's last run, by what became of them; size is all of them.",
        ["backup_job", "fate"],
        [((one.job, fate), float(getattr(one, f"{fate}_bytes"))) for one in reports for fate in _FATES],
    )
    yield gauge(
        "proxyfleet_job_last_run_vms",
        "VMs of a job's last run, by how they ended.",
        ["backup_job", "state"],
        [
            ((one.job, state), float(one.vms_in(state)))
            for one in reports
            for state in ("succeeded", "failed", "cancelled")
        ],
    )
    yield gauge(
        "proxyfleet_job_last_run_warnings",
        "VMs of a job's last run that have a warning.",
        ["backup_job"],
        [((one.job,), float(len(one.warnings))) for one in reports],
    )
    yield gauge(
        "proxyfleet_job_last_run_bottleneck",
        "1 for the stage that set the pace of most of a job's last run.",
        ["backup_job", "bottleneck"],
        [((one.job, stage), float(one.bottleneck == stage)) for one in reports for stage in _BOTTLENECKS],
    )


def points_of(session: Session) -> Iterator[Metric]:
    """The newest restore point of each VM that has any."""
    newest = select(Point.vm_id, Point.vm_name, Point.job, func.max(Point.created_at))
    found: dict[str, tuple[str, str, float]] = {}
    for vm_id, name, job, created_at in session.execute(newest.group_by(Point.vm_id, Point.vm_name, Point.job)):
        if vm_id not in found or found[vm_id][2] < created_at:
            found[vm_id] = (name, job, created_at)
    yield gauge(
        "proxyfleet_vm_newest_point_timestamp_seconds",
        "When the newest restore point of a VM was made.",
        ["vm", "vm_id", "backup_job"],
        [((name, vm_id, job), created_at) for vm_id, (name, job, created_at) in found.items()],
    )


class RepositoryMetrics:
    """Repositories. What their points add up to is computed again only when there are others."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, float | None], int]] = {}
        """By repository: how many points of what newest date, and their bytes."""

    def collect(self, session: Session) -> Iterator[Metric]:
        """Points, VMs and room of each."""
        names = session.scalars(select(Repository).order_by(Repository.name)).all()
        counted = select(
            Point.repository, func.count(), func.count(Point.vm_id.distinct()), func.max(Point.created_at)
        )
        counts = {row[0]: row[1:] for row in session.execute(counted.group_by(Point.repository))}
        none = (0, 0, None)
        yield self._gauge("points", "Restore points.", [(one, counts.get(one.name, none)[0]) for one in names])
        yield self._gauge(
            "vms", "VMs with restore points.", [(one, counts.get(one.name, none)[1]) for one in names]
        )
        stored = []
        for one in names:
            count, _, newest = counts.get(one.name, none)
            stored.append((one, self._stored(session, one.name, (count, newest))))
        yield self._gauge("stored_bytes", "What its restore points added to it when they were made.", stored)
        yield from self._proofs(session, names)
        measured = [one for one in names if one.size_bytes is not None and one.free_bytes is not None]
        yield self._gauge(
            "size_bytes", "Of the file system that it lies on.", [(one, one.size_bytes or 0) for one in measured]
        )
        yield self._gauge(
            "free_bytes",
            "Free on that file system, as a proxy saw it at the last commit or rescan.",
            [(one, one.free_bytes or 0) for one in measured],
        )

    def _proofs(self, session: Session, names: Sequence[Repository]) -> Iterator[Metric]:
        figures = [(one, proof_figures(session, one.name)) for one in names]
        for name, text, key in (
            ("unproven_points", "Restore points of which not everything has been read yet.", "unproven"),
            ("damaged_points", "Restore points that wait for repair.", "damaged"),
            (
                "points_without_prompt",
                "Restore points whose VM was started without one.",
                "unbootable",
            ),
            ("booted_points", "Restore points whose VM was started and showed a login prompt.", "booted"),
        ):
            yield self._gauge(name, text, [(one, getattr(found, key)) for one, found in figures])
        oldest = [(one, found.oldest_proof_at) for one, found in figures if found.oldest_proof_at is not None]
        yield self._gauge(
            "oldest_proof_timestamp_seconds",
            "Since when all that its proven restore points need has been read.",
            [(one, int(at)) for one, at in oldest],
        )

    def _gauge(self, name: str, text: str, values: Iterable[tuple[Repository, int]]) -> Metric:
        samples = [((one.name,), float(value)) for one, value in values]
        return gauge(f"proxyfleet_repository_{name}", text, ["repository"], samples)

    def _stored(self, session: Session, repository: str, mark: tuple[int, float | None]) -> int:
        known = self._known.get(repository)
        if known is None or known[0] != mark:
            disks = session.scalars(select(Point.disks).where(Point.repository == repository))
            known = self._known[repository] = (mark, sum(disk.stored_bytes for each in disks for disk in each))
        return known[1]


def notifications_of(session: Session) -> Iterator[Metric]:
    """What the outbox holds."""
    grouped = select(Delivery.notification, Delivery.state, func.count())
    counts = {
        (name, state): count
        for name, state, count in session.execute(grouped.group_by(Delivery.notification, Delivery.state))
    }
    names = session.scalars(select(Notification.name).order_by(Notification.name)).all()
    yield gauge(
        "proxyfleet_notifications",
        "Ends of runs in the outbox, by whom they are for and whether they were told.",
        ["notification", "state"],
        [((name, state.value), counts.get((name, state), 0)) for name in names for state in DeliveryState],
    )


def snapshots_of(session: Session) -> Iterator[Metric]:
    """Snapshots at vCenters that haven't been removed."""
    there = select(SnapshotEntry.vcenter, SnapshotEntry.state, func.count()).where(
        SnapshotEntry.removed_at.is_(None)
    )
    rows = session.execute(there.group_by(SnapshotEntry.vcenter, SnapshotEntry.state))
    samples = [((vcenter, SnapshotState(state).value), float(count)) for vcenter, state, count in rows]
    yield gauge("proxyfleet_snapshots", "Snapshots not removed yet, by state.", ["vcenter", "state"], samples)


def server_backup_of(session: Session) -> Iterator[Metric]:
    """The server's own backup, once one was tried."""
    mark = session.get(ServiceMark, 1)
    if mark is None or mark.backup_tried_at is None:
        return
    yield gauge(
        "proxyfleet_server_backup_failed",
        "1 if the last try to back the server itself up failed.",
        [],
        [((), float(mark.backup_failure is not None))],
    )
    if mark.backed_up_at is not None:
        yield gauge(
            "proxyfleet_server_backup_timestamp_seconds",
            "When the newest backup of the server itself was made.",
            [],
            [((), mark.backed_up_at)],
        )
