"""Steps at vCenters in the journal: opened, chosen, started, recorded, tried again.

A step's row is written STARTED before anything is asked of a vCenter. What its outcome means is for the kind's own
handling: whoever adds a kind of step gives one to the service, beside what the executor performs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.subjects import Frozen
from scheduler.runs.journal import Journal
from scheduler.runs.waiting import REMOVE, SCAN, step_id, survey
from scheduler.state.models import StepState, Vcenter, VcenterStep
from scheduler.vcenters.account import Account
from scheduler.vcenters.steps import StepCall, StepOutcome

PRIORITY: Final = {REMOVE: 10, SCAN: 50}
"""Lower is sooner: what frees a vCenter goes first."""
REGULAR_PRIORITY: Final = 100


@dataclass(frozen=True, slots=True)
class StepHandling:
    """What a kind of step means to the journal. Both run in a transaction of the service."""

    record: Callable[[Journal, VcenterStep, StepOutcome], None]
    """Record an outcome where it belongs; then `Journal.close_step`, or `try_later`."""
    starting: Callable[[Journal, VcenterStep], None] = lambda _journal, _step: None
    """Write down what may be so from now on."""


def open_step(
    journal: Journal,
    kind: str,
    *,
    vcenter: str,
    subject: str,
    title: str,
    request: Frozen,
    vm_ref: str | None = None,
    priority: int | None = None,
) -> VcenterStep:
    """Have something done at a vCenter, once; `subject` is what its kind's handling finds its place by."""
    step = VcenterStep(
        id=step_id(kind, subject),
        kind=kind,
        vcenter=vcenter,
        title=title,
        request=request.model_dump_json(),
        state=StepState.QUEUED,
        vm_ref=vm_ref,
        subject=subject,
        priority=PRIORITY.get(kind, REGULAR_PRIORITY) if priority is None else priority,
        created_at=journal.now,
    )
    journal.session.add(step)
    return step


def try_later(journal: Journal, step: VcenterStep, failure: TaskFailure | None, wait_s: float) -> None:
    """Do it again, `wait_s` from now."""
    step.state, step.failure = StepState.WAITING, failure
    step.retry_at = journal.now + wait_s
    step.tries += 1


def requeue_started(journal: Journal, running: frozenset[str]) -> None:
    """Have everything done again that an earlier life started and of which nobody knows how it ended."""
    started = select(VcenterStep).where(VcenterStep.state == StepState.STARTED)
    for step in journal.session.scalars(started).all():
        if step.id not in running:
            step.state, step.cancelling = StepState.QUEUED, False


def start_steps(journal: Journal, handling: Mapping[str, StepHandling]) -> list[StepCall]:
    """Journal as started what can be; what is at a vCenter that isn't declared any more fails here."""
    session = journal.session
    accounts = {row.name: account_of(row) for row in session.scalars(select(Vcenter))}
    choice = survey(session, journal.now, journal.reading)
    for undeclared in choice.undeclared:
        step = session.get_one(VcenterStep, undeclared)
        handling[step.kind].record(journal, step, StepOutcome(step.id, failure=_undeclared(step)))
    calls = []
    for chosen in choice.start:
        step = session.get_one(VcenterStep, chosen)
        step.state, step.retry_at, step.started_at = StepState.STARTED, None, journal.now
        handling[step.kind].starting(journal, step)
        calls.append(StepCall(step.id, step.kind, accounts[step.vcenter], step.request))
    return calls


def record_steps(journal: Journal, outcomes: Sequence[StepOutcome], handling: Mapping[str, StepHandling]) -> None:
    """Record how steps ended, and what follows from it. One that isn't in the journal has been recorded before."""
    for outcome in outcomes:
        step = journal.session.get(VcenterStep, outcome.step_id)
        if step is not None and step.state is StepState.STARTED:
            handling[step.kind].record(journal, step, outcome)


def account_of(row: Vcenter) -> Account:
    """How the scheduler logs in to a declared vCenter."""
    return Account(
        name=row.name,
        host=row.host,
        user=row.user,
        credential=row.credential,
        port=row.port,
        thumbprint=row.thumbprint,
        ca_file=Path(row.ca_file) if row.ca_file is not None else None,
        max_sessions=row.max_sessions,
    )


def _undeclared(step: VcenterStep) -> TaskFailure:
    return TaskFailure(
        code="no-such-vcenter",
        what=step.title,
        why=f"vCenter {step.vcenter} is not declared any more",
        exit_code=NotFoundError.exit_code,
    )
