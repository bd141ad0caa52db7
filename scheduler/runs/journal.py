"""One transaction of the state machine, and what it means for the ledger once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from scheduler.dispatch.fleet import Placement
from scheduler.state.models import LedgerTask, VcenterStep
from scheduler.state.store import State
from scheduler.vcenters.choice import Reading


class Journal:
    """A transaction. What it opened, cancelled and closed holds only after the commit."""

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.now = now
        self.opened: list[LedgerTask] = []
        self.begun: set[str] = set()
        """VM runs whose disks are opened once more: those go on, though no VM may begin now."""
        self.cancelling: list[str] = []
        self.closed: list[str] = []
        self.stopping: list[str] = []
        self.storage: frozenset[str] = frozenset()
        """Datastores of which some proxy that runs makes storage snapshots."""
        self.reading: Reading | None = None
        """How far proxies are with what is frozen; None: nobody has looked yet."""
        self.obstacle: Callable[[Placement], str | None] = lambda _placement: None
        """Why no proxy that runs could do a task of such a placement, however idle; None: one could."""

    def open(self, task: LedgerTask) -> None:
        """Have the ledger given `task`."""
        self.session.add(task)
        self.opened.append(task)

    def cancel(self, task: LedgerTask) -> None:
        """Have the ledger cancel `task`; its outcome still arrives."""
        if not task.cancelling:
            task.cancelling = True
            self.cancelling.append(task.id)

    def keep(self, task: LedgerTask) -> None:
        """Keep the row of `task` for a later step, though the ledger is done with it."""
        self.closed.append(task.id)

    def close(self, task: LedgerTask) -> None:
        """Forget `task`, whose outcome has been recorded where it belongs."""
        self.session.delete(task)
        self.closed.append(task.id)

    def stop(self, step: VcenterStep) -> None:
        """Have a step at a vCenter told to stop; its outcome still arrives."""
        if not step.cancelling:
            step.cancelling = True
            self.stopping.append(step.id)

    def close_step(self, step: VcenterStep) -> None:
        """Forget a step, whose outcome has been recorded where it belongs."""
        self.session.delete(step)


@contextmanager
def journal(state: State, clock: Callable[[], float]) -> Iterator[Journal]:
    """A journal that is committed at the end, unless an exception passes."""
    with state.write() as session:
        yield Journal(session, clock())
