"""The VMs of a run, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.state.models import VmRun


def vm_runs_of(session: Session, run_id: str) -> Sequence[VmRun]:
    """By name; restore points of one VM that are copied, the oldest first."""
    # Their ids end with numbers, given in that order: the longer one is the higher.
    ordered = (VmRun.name, func.length(VmRun.id), VmRun.id)
    return session.scalars(select(VmRun).where(VmRun.run_id == run_id).order_by(*ordered)).all()
