"""What scans of vCenters show: kept in the catalogue, cleared of what is ours and left over, planned from."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.runs.beginning import plan_if_scanned, vcenters_of
from scheduler.runs.journal import Journal
from scheduler.runs.removing import sweep
from scheduler.runs.scans import is_pending, is_since, requeue, want_scan
from scheduler.runs.steps import StepHandling, try_later
from scheduler.state.models import Run, RunState, StepState, Vcenter, VcenterScan, VcenterStep, WorkState
from scheduler.state.scanning import store_scan
from scheduler.vcenters.scanning import Scanned
from scheduler.vcenters.steps import StepOutcome

logger = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""At most so long after a scan failed it is tried again: whole runs wait for it."""


def scan_everything(journal: Journal) -> None:
    """Have every declared vCenter read, as at the start: what an earlier life left there is found by it."""
    for name in journal.session.scalars(select(Vcenter.name)).all():
        want_scan(journal, name, since=journal.now)


def begin_scans(journal: Journal) -> None:
    """Have done what commands ask for."""
    for asked in journal.session.scalars(select(VcenterScan).where(VcenterScan.state == WorkState.REQUESTED)).all():
        asked.state = WorkState.RUNNING
        want_scan(journal, asked.vcenter, since=journal.now)


def _record(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    session = journal.session
    scanned, failure = outcome.answer, outcome.failure
    summary = None
    if isinstance(scanned, Scanned):
        summary = store_scan(session, step.vcenter, scanned.vms, journal.now)
        step.state, step.failure, step.ended_at = StepState.SUCCEEDED, None, journal.now
        sweep(journal, step.vcenter, scanned.ours, seen_at=step.started_at or journal.now)
    elif failure is not None and failure.retryable and (wait_s := _patience(session, step)) is not None:
        logger.warning("%s: %s", step.title, failure)
        try_later(journal, step, failure, wait_s)
    else:
        logger.warning("%s: %s", step.title, failure)
        step.state, step.failure, step.ended_at = StepState.FAILED, failure, journal.now
    session.flush()
    answered = _answer(journal, step, summary)
    for run in _scanning(session):
        plan_if_scanned(journal, run)
    if step.state.final and (not answered or _is_wanted(session, step)):
        requeue(step, journal.now)


def _scanning(session: Session) -> list[Run]:
    return list(session.scalars(select(Run).where(Run.state == RunState.SCANNING)).all())


def _patience(session: Session, step: VcenterStep) -> float | None:
    """How long to wait before the next try, if some run that waits for it has tries left."""
    waits = [
        min(run.retry_wait_seconds, RETRY_S)
        for run in _scanning(session)
        if step.tries <= run.retry_count and step.vcenter in vcenters_of(session, run)
    ]
    return min(waits, default=None)


def _answer(journal: Journal, step: VcenterStep, summary: str | None) -> bool:
    """Tell commands that asked for this scan how it ended; False if one asked after it had begun."""
    asked = select(VcenterScan).where(VcenterScan.vcenter == step.vcenter, VcenterScan.state == WorkState.RUNNING)
    left = False
    for scan in journal.session.scalars(asked).all():
        if not is_since(step, scan.created_at):
            left = True
        elif step.state is StepState.SUCCEEDED:
            scan.state, scan.summary, scan.ended_at = WorkState.SUCCEEDED, summary, journal.now
        else:
            scan.state, scan.failure, scan.ended_at = WorkState.FAILED, step.failure, journal.now
    return not left


def _is_wanted(session: Session, step: VcenterStep) -> bool:
    return any(
        step.vcenter in vcenters_of(session, run) and is_pending(session, run, step.vcenter)
        for run in _scanning(session)
    )


SCANNING: Final = StepHandling(_record)
