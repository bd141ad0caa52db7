"""Ending an instant restore that can't be let go of, since its host or its proxy is gone for good.

What it is wanted to be is written down by the command and carried out by the service, one thing at a time: a host
that isn't there is given up first, and the proxy is still told to forget what the VM wrote.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import TaskKind
from scheduler.restores import flow, instant
from scheduler.restores.instant_steps import UNMOUNT
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.state.models import LedgerTask, StepState, VcenterStep, VmRestore, VmRestoreState, WorkState

_LETTING_GO = (VmRestoreState.RELEASING, VmRestoreState.UNDOING)


class NothingToGiveUpError(ConflictError):
    """The restore isn't waiting to be let go of."""


def ask_to_give_up(session: Session, restore: VmRestore) -> str:
    """Ask for an end without what is waited for now, and say what that leaves; raises `NothingToGiveUpError`."""
    step = session.scalars(_unmounting(restore)).first()
    task = session.scalars(_releasing(restore)).first()
    if restore.state not in _LETTING_GO or (step is None and task is None):
        raise NothingToGiveUpError(
            f"restore {restore.id}",
            why=f"it is {restore.state}, and isn't waiting for a host to unmount or for a proxy to serve no more",
            remedy=f"`scheduler restore show {restore.id}` says what it does; cancel it without --force first.",
        )
    restore.given_up = True
    return _left_mounted(restore) if step is not None else instant.left_on_proxy(restore)


def given_up() -> ColumnElement[bool]:
    """Whether `give_up` would do anything."""
    step = exists().where(
        VcenterStep.subject == VmRestore.id,
        VcenterStep.kind == UNMOUNT.name,
        VcenterStep.state != StepState.STARTED,  # its outcome comes soon
    )
    task = exists().where(LedgerTask.vm_restore_id == VmRestore.id, LedgerTask.kind == TaskKind.POINT_RELEASE)
    return VmRestore.given_up & VmRestore.state.in_(_LETTING_GO) & (step | task)


def give_up(journal: Journal, restore: VmRestore) -> None:
    """Go on without what is waited for; what that leaves becomes a warning."""
    restore.given_up = False
    step = journal.session.scalars(_unmounting(restore)).first()
    if step is not None:
        restore.warnings = (*restore.warnings, _left_mounted(restore))
        instant.go_on_unmounted(journal, step, restore)
        return
    for task in journal.session.scalars(_releasing(restore)).all():
        if task.state is WorkState.WAITING:  # the ledger doesn't have it
            task.cancelling = True
            instant.record_release(journal, task, restore, Outcome(task.id, journal.now))
        else:
            journal.cancel(task)


def _unmounting(restore: VmRestore) -> Select[VcenterStep]:
    return select(VcenterStep).where(VcenterStep.subject == restore.id, VcenterStep.kind == UNMOUNT.name)


def _releasing(restore: VmRestore) -> Select[LedgerTask]:
    kind = LedgerTask.kind == TaskKind.POINT_RELEASE
    return select(LedgerTask).where(LedgerTask.vm_restore_id == restore.id, kind)


def _left_mounted(restore: VmRestore) -> str:
    host = restore.place.host if restore.place is not None else None
    return (
        f"host {host or 'of the VM'} may keep datastore {flow.served_datastore(restore)} mounted: remove it there"
    )
