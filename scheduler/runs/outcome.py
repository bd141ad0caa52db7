"""How a task of a proxy ended, as the ledger told it."""

from __future__ import annotations

from dataclasses import dataclass

from proxy_worker.contract.outcome import TaskAttempt, TaskFailure, TaskResult


@dataclass(frozen=True)
class Outcome:
    """How a task ended. With neither result nor failure it was cancelled."""

    task_id: str
    ended_at: float
    result: TaskResult | None = None
    failure: TaskFailure | None = None
    proxy: str | None = None
    fence_number: int | None = None
    attempts: int = 0
    started_at: float | None = None
    checkpoint: str | None = None
    history: tuple[TaskAttempt, ...] = ()
