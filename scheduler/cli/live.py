"""The ledger as far as it can be seen: what a command shows must not fail with it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.replication_outcome import DiskReplicateResult
from proxy_worker.ledger import FinishedTask, FleetView, TaskState, TaskView
from scheduler.cli.opening import open_ledger
from scheduler.dispatch.reasons import waiting_reasons

REASONS_EVERY_S = 2.0
"""How often the policy is asked why things wait; with hundreds of disks that is the costly part of a look."""


@dataclass(frozen=True)
class Live:
    """What runs at one moment, or nothing while the ledger can't be read."""

    view: FleetView | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By task id: why it doesn't run."""
    ended: Mapping[str, FinishedTask] = field(default_factory=dict)
    """By id: tasks that are over and not recorded in the database yet."""

    def task(self, task_ids: Iterable[str]) -> TaskView | None:
        """The first of these tasks that the ledger holds."""
        held = self.view.tasks if self.view is not None else {}
        return next((held[task_id] for task_id in task_ids if task_id in held), None)

    def reason(self, task_ids: Iterable[str]) -> str | None:
        """Why the first of these tasks that waits does so, or what happened last to one that runs."""
        for task_id in task_ids:
            if task_id in self.reasons:
                return self.reasons[task_id].removeprefix("waiting: ")
        task = self.task(task_ids)
        return (task.note or None) if task is not None else None

    def result(self, task_ids: Iterable[str]) -> DiskBackupResult | DiskReplicateResult | None:
        """What the first of these tasks that is over stored, until the database has it."""
        results = (self.ended[task_id].result for task_id in task_ids if task_id in self.ended)
        return next(
            (result for result in results if isinstance(result, DiskBackupResult | DiskReplicateResult)), None
        )

    def running(self, task_ids: Iterable[str]) -> TaskView | None:
        """The first of these tasks that a proxy works on."""
        task = self.task(task_ids)
        return task if task is not None and task.state is TaskState.RUNNING else None


class LedgerWindow:
    """Looks at the ledger and says why it couldn't."""

    def __init__(self) -> None:
        self._ledger = open_ledger()
        self._reasons: Mapping[str, str] = {}
        self._asked_at = float("-inf")
        self.problem: str | None = None
        """Why the last look failed; None when it didn't."""

    def look(self, session: Session | None = None) -> Live:
        """What runs now; with a session, also why the rest waits."""
        try:
            view = self._ledger.view()
            ended = {task.task_id: task for task in self._ledger.finished()}  # after it: nothing falls between
        except LedgerError as error:
            self.problem = str(error)
            return Live()
        self.problem = None
        if session is not None and time.monotonic() - self._asked_at >= REASONS_EVERY_S:
            self._reasons = waiting_reasons(session, view, time.time())
            self._asked_at = time.monotonic()
        waiting = {TaskState.READY, TaskState.RESERVED, TaskState.DISPATCHED}
        current = {
            task_id: reason
            for task_id, reason in self._reasons.items()
            if task_id not in view.tasks or view.tasks[task_id].state in waiting
        }
        return Live(view, current, ended)
