"""VM runs that are asked for in several places: those of a run, as they are told; those that have begun."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from scheduler.state.models import DiskTask, DiskTaskState, VmRun, VmRunState


def vm_runs_of(session: Session, run_id: str) -> Sequence[VmRun]:
    """By name; restore points of one VM that are copied, the oldest first."""
    # Their ids end with numbers, given in that order: the longer one is the higher.
    ordered = (VmRun.name, func.length(VmRun.id), VmRun.id)
    return session.scalars(select(VmRun).where(VmRun.run_id == run_id).order_by(*ordered)).all()


def begun_vm_runs(session: Session) -> set[str]:
    """The ids of VM runs that have begun and not ended, as recorded: a disk has ended, or is tried again."""
    ended = [state for state in DiskTaskState if state.final]
    touched = or_(DiskTask.state.in_(ended), DiskTask.tries > 1, DiskTask.retry_at.is_not(None))
    begun = select(DiskTask.vm_run_id).join(VmRun, VmRun.id == DiskTask.vm_run_id)
    return set(session.scalars(begun.where(VmRun.state == VmRunState.RUNNING, touched).distinct()))
