"""Which steps at vCenters can be started, and why the others wait; for the service, and for whoever asks.

Nothing here talks to a vCenter, so that commands can import it quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from scheduler.dispatch import wording
from scheduler.dispatch.declared import limits_of
from scheduler.state.models import (
    Run,
    SnapshotEntry,
    SnapshotState,
    StepState,
    Vcenter,
    VcenterStep,
    VmRestore,
    VmRestoreState,
    VmRun,
    VmRunState,
)
from scheduler.vcenters.choice import Choice, OpenSnapshot, Pending, Reading, choose

DESCRIBE: Final = "describe"
REMOVE: Final = "remove"
SCAN: Final = "scan"
SNAPSHOT: Final = "snapshot"


def step_id(kind: str, subject: str) -> str:
    """The id of the only step of a kind that a subject has at a time."""
    return f"{subject}.{kind}"


def survey(session: Session, now: float, reading: Reading | None = None) -> Choice:
    """Which steps can be started at `now` (Unix seconds), and why the others wait.

    `reading` says how far proxies are with what is frozen; None: nobody knows.
    """
    due = or_(VcenterStep.state == StepState.STARTED, _is_due(now))
    steps = session.scalars(select(VcenterStep).where(due)).all()
    subjects = {step.subject for step in steps}
    entries = {
        entry.id: entry
        for entry in session.scalars(select(SnapshotEntry).where(or_(_is_open(), SnapshotEntry.id.in_(subjects))))
    }
    closed = _outside_of_windows(session, [step for step in steps if step.kind == SNAPSHOT], now)
    pending = [
        _pending(step, entries) for step in steps if step.state is not StepState.STARTED and step.id not in closed
    ]
    running = [_pending(step, entries) for step in steps if step.state is StepState.STARTED]
    snapshots = [
        OpenSnapshot(entry.id, entry.vcenter, entry.vm_ref, entry.datastores)
        for entry in entries.values()
        if entry.state.open or (entry.state is SnapshotState.REMOVING and not entry.tries)
    ]
    sessions = {row.name: row.max_sessions for row in session.scalars(select(Vcenter))}
    choice = choose(pending, running, snapshots, sessions, restoring=_restoring(session), reading=reading)
    return replace(choice, waiting={**choice.waiting, **closed})


def waiting_vms(session: Session, now: float, reading: Reading | None = None) -> dict[str, str]:
    """By id, what each VM run that isn't frozen, or described, yet waits for, in a line that people can read.

    `now` is in Unix seconds; `reading` as `survey` takes it.
    """
    waiting = survey(session, now, reading).waiting
    of_vm_run = and_(VcenterStep.subject == VmRun.repository_run, VcenterStep.kind.in_((SNAPSHOT, DESCRIBE)))
    unbegun = VmRun.state.in_((VmRunState.SNAPSHOTTING, VmRunState.OPENING))
    rows = session.execute(select(VmRun.id, VcenterStep).join(VcenterStep, of_vm_run).where(unbegun))
    return {vm_run_id: _reason(step, waiting.get(step.id), now) for vm_run_id, step in rows}


def waiting_scans(session: Session, now: float) -> dict[str, str]:
    """By name of vCenter, what its scan waits for, or that it goes on; those that have ended are absent."""
    waiting = survey(session, now).waiting
    scans = select(VcenterStep).where(VcenterStep.kind == SCAN)
    return {
        step.vcenter: _reason(step, waiting.get(step.id), now)
        for step in session.scalars(scans)
        if not step.state.final
    }


def _outside_of_windows(session: Session, steps: Sequence[VcenterStep], now: float) -> dict[str, str]:
    """Steps that would freeze a VM at a time when its job begins none, with the reason."""
    if not steps:
        return {}
    limits = limits_of(session)
    subjects = [step.subject for step in steps]
    rows = session.execute(
        select(VmRun.repository_run, Run.job)
        .join(Run, VmRun.run_id == Run.id)
        .where(VmRun.repository_run.in_(subjects))
    )
    jobs = {row.repository_run: row.job for row in rows}
    waiting = {}
    for step in steps:
        closed = limits.closed(jobs[step.subject], now) if step.subject in jobs else None
        if closed is not None:
            waiting[step.id] = f"waiting: {wording.closed(*closed, now)}"
    return waiting


def _restoring(session: Session) -> dict[tuple[str, str], str]:
    """VMs whose disks are, or may be, written or moved by a restore: beneath a snapshot that would be lost."""
    under_way = (
        VmRestoreState.CREATING,
        VmRestoreState.WRITING,
        VmRestoreState.FINISHING,
        VmRestoreState.STARTING,
        VmRestoreState.MIGRATING,
        VmRestoreState.UNDOING,
    )
    rows = session.scalars(select(VmRestore).where(VmRestore.state.in_(under_way), VmRestore.vm_ref.is_not(None)))
    return {(row.vcenter, row.vm_ref or ""): row.id for row in rows}


def _reason(step: VcenterStep, obstacle: str | None, now: float) -> str:
    if step.state is StepState.STARTED:
        return f"vCenter {step.vcenter} is busy with it: {step.title}"
    if step.state is StepState.WAITING and step.retry_at is not None and step.retry_at > now:
        return f"waiting: tried again in {step.retry_at - now:.0f} s, since it failed: {step.failure}"
    return obstacle or "waiting: about to be started"


def _is_due(now: float) -> ColumnElement[bool]:
    again = and_(VcenterStep.state == StepState.WAITING, VcenterStep.retry_at <= now)
    return or_(VcenterStep.state == StepState.QUEUED, again)


def _is_open() -> ColumnElement[bool]:
    needed = (SnapshotState.MAKING, SnapshotState.PRESENT, SnapshotState.REMOVING)
    return SnapshotEntry.state.in_(needed)


def _pending(step: VcenterStep, entries: Mapping[str, SnapshotEntry]) -> Pending:
    entry = entries.get(step.subject or "") if step.kind in {SNAPSHOT, REMOVE} else None
    return Pending(
        step_id=step.id,
        vcenter=step.vcenter,
        priority=step.priority,
        created_at=step.created_at,
        vm=step.vm_ref,
        vm_name=entry.vm_name if entry is not None else "",
        snapshot=entry.id if entry is not None else None,
        makes_snapshot=step.kind == SNAPSHOT,
        datastores=entry.datastores if entry is not None else (),
        climbs=step.kind == REMOVE and entry is not None and entry.tries > 0,
    )
