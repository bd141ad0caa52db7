"""Scans of vCenters that are wanted: one at a time of each, shared by all runs that it is new enough for.

The row of a vCenter's scan stays when it has ended, and says how: the next one takes its place.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import TaskFailure
from scheduler.runs.journal import Journal
from scheduler.runs.steps import open_step
from scheduler.runs.waiting import SCAN, step_id
from scheduler.state.models import Run, StepState, VcenterStep
from scheduler.vcenters.scanning import ScanRequest

FRESH_S: Final = 5.0
"""A scan that began at most so long before a run of a schedule is new enough for it: those that begin together
share one."""


def want_scan(journal: Journal, vcenter: str, *, since: float) -> None:
    """Have a vCenter read, unless that was done since then (Unix seconds), or is about to be."""
    step = journal.session.get(VcenterStep, step_id(SCAN, vcenter))
    if step is None:
        title = f"scan of vCenter {vcenter}"
        open_step(journal, SCAN, vcenter=vcenter, subject=vcenter, title=title, request=ScanRequest())
    elif step.state is StepState.FAILED or (step.state is StepState.SUCCEEDED and not is_since(step, since)):
        requeue(step, journal.now)


def requeue(step: VcenterStep, now: float) -> None:
    """Have a scan that has ended done again."""
    step.state, step.tries, step.created_at = StepState.QUEUED, 1, now
    step.failure = step.ended_at = step.retry_at = None


def is_since(step: VcenterStep, since: float) -> bool:
    """Whether what a scan shows, or will, is at least so new (Unix seconds)."""
    return step.started_at is not None and step.started_at >= since


def is_pending(session: Session, run: Run, vcenter: str) -> bool:
    """Whether a run has to wait for what this vCenter shows."""
    step = session.get(VcenterStep, step_id(SCAN, vcenter))
    if step is None or step.state in {StepState.QUEUED, StepState.STARTED}:
        return True
    if not is_since(step, run.scanned_after or 0.0):
        return True
    return step.state is StepState.WAITING and step.tries <= run.retry_count + 1


def failure_of(session: Session, vcenter: str) -> TaskFailure | None:
    """Why the last scan of a vCenter showed nothing; None: it did."""
    step = session.get(VcenterStep, step_id(SCAN, vcenter))
    return step.failure if step is not None and step.state is not StepState.SUCCEEDED else None
