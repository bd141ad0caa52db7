"""Rows of the ledger's scripts as records."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import DiskProgress, ProxyRegistration, TaskFailure, TaskResult
from proxy_worker.ledger.records import (
    Fence,
    FinishedTask,
    ProxyOrders,
    ProxyView,
    TaskState,
    TaskVerdict,
    TaskView,
)

TASK_RESULT: TypeAdapter[TaskResult] = TypeAdapter(TaskResult)


class HoldersLostError(LedgerError):
    """One proxy process after the other vanished while it worked on the same task."""


def task_view(row: list[Any]) -> TaskView:
    """A row of `view.lua`'s tasks."""
    (
        kind,
        title,
        state,
        n,
        lane,
        proxy,
        epoch,
        counter,
        attempts,
        since,
        progress,
        verdict,
        note,
        saved,
        task_id,
    ) = row
    return TaskView(
        task_id=task_id,
        kind=TaskKind(kind),
        title=title,
        state=TaskState(state),
        dispatch_number=int(n),
        lane=lane,
        proxy=proxy,
        fence_number=_fence_number(task_id, epoch, counter),
        attempts=int(attempts),
        since=float(since),
        progress=DiskProgress.model_validate_json(progress) if progress else None,
        has_checkpoint=bool(saved),
        verdict=TaskVerdict(verdict),
        note=note,
    )


def proxy_view(row: list[Any]) -> ProxyView:
    """A row of `view.lua`'s proxies."""
    name, registration, live, draining, age_s, used, lanes, enabled, limit = row
    return ProxyView(
        name=name,
        registration=ProxyRegistration.model_validate_json(registration),
        orders=proxy_orders(lanes, enabled, limit),
        live=bool(live),
        draining=draining == "1",
        heartbeat_age_s=float(age_s),
        slots_used=int(used),
    )


def proxy_orders(lanes: str | None, enabled: str | None, limit: str | None) -> ProxyOrders:
    """What `orders:<name>` says; a proxy nobody has given orders yet is enabled and has only its own lane."""
    return ProxyOrders(
        lanes=tuple(json.loads(lanes or "[]")),
        enabled=enabled != "0",
        max_concurrent_tasks=int(limit) if limit else None,
    )


def finished_task(row: list[Any]) -> FinishedTask:
    """A row of `finished.lua`."""
    (kind, title, state, epoch, counter, proxy, attempts, started, ended, outcome, checkpoint, note, task_id) = row
    failure = None
    if state == TaskState.FAILED:
        failure = TaskFailure.model_validate_json(outcome) if outcome else _lost(title, attempts, note)
    return FinishedTask(
        task_id=task_id,
        kind=TaskKind(kind),
        title=title,
        state=TaskState(state),
        fence_number=_fence_number(task_id, epoch, counter),
        proxy=proxy,
        attempts=int(attempts),
        started_at=float(started) if started else None,
        ended_at=float(ended),
        result=TASK_RESULT.validate_json(outcome) if state == TaskState.DONE else None,
        failure=failure,
        checkpoint=checkpoint,
    )


def _fence_number(task_id: str, epoch: str | None, counter: str | None) -> int | None:
    return Fence(task_id, int(epoch), int(counter), "").number if epoch and counter else None


def _lost(title: str, attempts: str, note: str) -> TaskFailure:
    return TaskFailure.of(
        HoldersLostError(
            title,
            why=f"{attempts} attempts ended without a word, at last: {note}",
            remedy="Look into the proxies' logs for what kills their processes, e.g. a lack of memory.",
        )
    )
