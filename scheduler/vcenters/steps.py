"""What a step is: its kind, what it is called with, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.subjects import Frozen
from proxy_worker.vsphere.session import Endpoint, Session
from proxy_worker.vsphere.tasks import Waiting
from scheduler.vcenters.account import Account

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Access:
    """What a step works with, for as long as it lasts."""

    account: Account
    endpoint: Endpoint
    session: Session
    """Borrowed for this step alone."""
    password: str = field(repr=False)
    """For vCenter's REST interface, which has sessions of its own."""
    installation: str
    """Ours: what snapshots are marked with."""
    waiting: Waiting
    """How vCenter's own tasks are waited for; carries the word to stop."""


@dataclass(frozen=True, slots=True)
class StepKind(Generic[Q, A]):
    """A kind of step. Whoever wants one defines it, and gives it to the executor."""

    name: str
    """E.g. `snapshot`: what the journal calls it."""
    request: type[Q]
    perform: Callable[[Access, Q], A]
    """Runs in a thread of the executor. Idempotent; raises named errors; answers with an immutable value."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """A step that is journalled as started."""

    step_id: str
    kind: str
    account: Account
    request: str
    """The kind's request as JSON, as the journal keeps it."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended: with an answer, or a failure. One that was told to stop may still have succeeded."""

    step_id: str
    answer: object = None
    """As its kind has it; None: it failed."""
    failure: TaskFailure | None = None
