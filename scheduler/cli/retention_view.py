"""What a job's policy will do to its restore points, to people and to programs."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.cli.printing import iso, moment, plural, table
from scheduler.planning.retention import Verdict, words
from scheduler.runs.retention import verdicts
from scheduler.state.models import Job, Point


def retention_words(job: Job) -> str:
    """The policy in a line."""
    return f"{words(job.retention)}; never fewer than {job.retention.minimum}"


def preview(session: Session, job: Job) -> list[tuple[str, str, list[Verdict]]]:
    """By VM (name and id), what becomes of its points after the next run that backs it up."""
    own = select(Point.vm_name, Point.vm_id).where(Point.repository == job.repository, Point.job == job.name)
    vms = {vm_id: name for name, vm_id in session.execute(own.order_by(Point.created_at))}
    now = time.time()
    return [
        (name, vm_id, verdicts(session, job, vm_id, now=now, next_run=True))
        for vm_id, name in sorted(vms.items(), key=lambda vm: (vm[1], vm[0]))
    ]


def preview_as_json(session: Session, job: Job) -> list[dict[str, Any]]:
    """Each point of the job's VMs with what becomes of it."""
    return [
        {
            "vm": name,
            "vm_id": vm_id,
            "point": verdict.point.point,
            "created": iso(verdict.point.created_at),
            "pinned": verdict.point.pinned,
            "kept": verdict.kept,
            "why": verdict.why,
        }
        for name, vm_id, found in preview(session, job)
        for verdict in found
    ]


def describe_preview(session: Session, job: Job) -> RenderableType:
    """What the next run will remove."""
    found = preview(session, job)
    leaving = [(name, verdict) for name, _, judged in found for verdict in judged if not verdict.kept]
    stays = sum(verdict.kept for _, _, judged in found for verdict in judged)
    if not leaving:
        kept = f"all {stays} stay" if stays else "it has none yet"
        return Text(f"The next run removes no restore point: {kept}.", style="dim")
    rows = table("VM", "REMOVED BY THE NEXT RUN", "CREATED", "WHY", keep=("REMOVED BY THE NEXT RUN",))
    for name, verdict in leaving:
        rows.add_row(Text(name), verdict.point.point, moment(verdict.point.created_at), Text(verdict.why))
    return Group(rows, Text(f"{plural(stays, 'restore point')} stay.", style="dim"))
