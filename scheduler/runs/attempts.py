"""The next attempt of a VM run: under a name that no task and no restore point has had, where its VM is by now."""

from __future__ import annotations

from sqlalchemy.orm import Session

from scheduler.runs.journal import Journal
from scheduler.state.asking import new_id
from scheduler.state.models import Vcenter, VmRun


def renew(journal: Journal, vm_run: VmRun) -> None:
    """Begin another attempt; what state it begins in is for the caller to say."""
    vm_run.attempt += 1
    vm_run.repository_run = new_id(journal.now)
    vm_run.cancelled = False
    vm_run.reason = vm_run.warning = vm_run.ended_at = None


def has_lost_its_vcenter(session: Session, vm_run: VmRun) -> bool:
    """Whether the vCenter that had its VM isn't declared any more: the plan shows which one has it by now."""
    return vm_run.place is not None and session.get(Vcenter, vm_run.place.vcenter) is None
