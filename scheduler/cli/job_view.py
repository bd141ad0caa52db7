"""How jobs are shown, to people and to programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.cli.printing import duration, facts, iso, moment, plural, state, table
from scheduler.cli.retention_view import describe_preview, preview_as_json, retention_words
from scheduler.fleet.stored import stored_job
from scheduler.planning.copies import CopyTerms
from scheduler.planning.schedule import Schedule
from scheduler.state.models import Job, JobKind, Run

LAST_RUNS = 5


def newest_run(session: Session, job: str) -> Run | None:
    """The run of a job that was asked for last."""
    return next(iter(_newest_runs(session, job, 1)), None)


def next_start(job: Job) -> float | None:
    """When the job's schedule starts it next; None when it doesn't."""
    if job.cron is None or not job.enabled:
        return None
    return Schedule(job.cron, job.timezone).next_after(time.time())


def job_columns(jobs: Sequence[Job], last: Sequence[Run | None]) -> dict[str, list[str | Text]]:
    """The columns of `job list`, with each job's last run."""
    return {
        "JOB": [Text(job.name) for job in jobs],
        "REPOSITORY": [Text(job.repository or "-") for job in jobs],
        "NEXT START": [moment(next_start(job)) if job.enabled else state("disabled") for job in jobs],
        "LAST RUN": [state(run.state.value) if run is not None else Text("-") for run in last],
        "ENDED": [moment(run.ended_at) if run is not None else "-" for run in last],
        "VMS": [Text(", ".join(_selected(job)) + _of_source(job)) for job in jobs],
    }


def job_as_json(session: Session, job: Job) -> dict[str, Any]:
    """The job as a fleet file has it, with all defaults, and what is known of its runs."""
    last = newest_run(session, job.name)
    return {
        **stored_job(job).model_dump(mode="json"),
        "next_start": iso(next_start(job)),
        "last_run": None
        if last is None
        else {
            "run": last.id,
            "state": last.state.value,
            "started": iso(last.started_at),
            "ended": iso(last.ended_at),
        },
    }


def job_with_preview(session: Session, job: Job) -> dict[str, Any]:
    """The same, and what becomes of its VMs' restore points after the next run."""
    return {**job_as_json(session, job), "points_after_next_run": preview_as_json(session, job)}


def describe_job(session: Session, job: Job) -> RenderableType:
    """The job's settings and its last runs."""
    schedule = f"{job.cron} ({job.timezone})" if job.cron is not None else "none"
    rows: list[tuple[str, str | Text]] = [
        ("job", job.name),
        ("kind", job.kind.value),
        ("VMs", "\n".join(_selected(job))),
        *_exclusions(job),
        *_copied(job.copy_from),
        *_target(job),
        ("schedule", schedule),
        ("next start", moment(next_start(job)) if job.enabled else state("disabled")),
        ("level", job.level.value),
        *_reading(job),
        ("retries", f"{job.retry_count}, after {duration(job.retry_wait_seconds)}"),
        ("keeps", _keeps(job)),
    ]
    runs = table("RUN", "STATE", "STARTED", "TIME", keep=("RUN",))
    newest = _newest_runs(session, job.name, LAST_RUNS)
    for run in newest:
        ended = run.ended_at or time.time()
        took = duration(ended - run.started_at) if run.started_at is not None else "-"
        runs.add_row(run.id, state(run.state.value), moment(run.started_at), took)
    shown = runs if newest else Text("It has not run yet.", style="dim")
    parts: list[RenderableType] = [facts(rows), "", shown]
    if job.replica is None:
        parts += ["", describe_preview(session, job)]
    return Group(*parts)


def _target(job: Job) -> list[tuple[str, str | Text]]:
    """Where restore points, or replicas, go."""
    replica = job.replica
    if replica is None:
        return [("repository", job.repository or "-")]
    rows: list[tuple[str, str | Text]] = [
        ("replicas", f"on datastore {replica.datastore}, named …{replica.suffix}")
    ]
    pairs = {"networks": replica.networks, "mapped": replica.mapped}
    rows += [(name, "\n".join(f"{old} → {new}" for old, new in of.items())) for name, of in pairs.items() if of]
    if replica.seed is not None:
        rows.append(("seeded from", replica.seed))
    return rows


def _keeps(job: Job) -> str:
    return f"{plural(job.replica.points, 'restore point')} of each replica" if job.replica else retention_words(job)


def _newest_runs(session: Session, job: str, count: int) -> list[Run]:
    newest = select(Run).where(Run.job == job).order_by(Run.created_at.desc(), Run.id.desc()).limit(count)
    return list(session.scalars(newest))


def _selected(job: Job) -> list[str]:
    if job.copy_from is not None and not job.vms:
        return ["all"]
    return [*job.vms, *(str(selector) for selector in job.criteria.select)]


def _of_source(job: Job) -> str:
    return f" of repository {job.copy_from.repository}" if job.copy_from is not None else ""


def _copied(terms: CopyTerms | None) -> list[tuple[str, str | Text]]:
    """What a copy job copies."""
    if terms is None:
        return []
    return [("copies from", terms.repository), ("points", terms.points.value), ("of jobs", ", ".join(terms.jobs))]


def _reading(job: Job) -> list[tuple[str, str | Text]]:
    """What only counts where VMs are read."""
    if job.kind is JobKind.COPY:
        return [("priority", "after all others")]
    return [
        ("transport mode", job.transport_mode + (", failover to network" if job.failover_to_network else "")),
        ("quiesce", job.quiesce.value),
        ("priority", job.priority.value),
    ]


def _exclusions(job: Job) -> list[tuple[str, str | Text]]:
    """What the job leaves out or takes besides, where it says so."""
    criteria = job.criteria
    rows: list[tuple[str, str | Text]] = []
    if criteria.exclude:
        rows.append(("without VMs", "\n".join(str(selector) for selector in criteria.exclude)))
    if criteria.exclude_disks:
        rows.append(("without disks", ", ".join(criteria.exclude_disks)))
    if criteria.templates:
        rows.append(("templates", "protected too"))
    return rows
