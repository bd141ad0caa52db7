"""Rows of the ledger's scripts as records. What a proxy of another version wrote, and nobody here can read, is no
reason to stop."""

from __future__ import annotations

import functools
import json
import logging
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from proxy_worker.contract.errors import LedgerError, ProxyfleetError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import TaskAttempt, TaskFailure, TaskResult
from proxy_worker.contract.versions import CONTRACT_VERSION, why_not_served
from proxy_worker.ledger.records import (
    Fence,
    FinishedTask,
    ProxyOrders,
    ProxyView,
    TaskState,
    TaskVerdict,
    TaskView,
)

log = logging.getLogger(__name__)

_WHEN_WANTED: Final = ConfigDict(defer_build=True)
TASK_RESULT: TypeAdapter[TaskResult] = TypeAdapter(TaskResult, config=_WHEN_WANTED)
_HISTORY: TypeAdapter[tuple[TaskAttempt, ...]] = TypeAdapter(tuple[TaskAttempt, ...], config=_WHEN_WANTED)


class HoldersLostError(LedgerError):
    """One proxy process after the other vanished while it worked on the same task."""


class QuarantinedError(ProxyfleetError):
    """A task's processes died over it one after the other: it isn't tried again until somebody has looked."""


class UnreadableOutcomeError(LedgerError):
    """A proxy reported the end of a task in a form that this version doesn't know."""


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
        progress=_progress(progress) if progress else None,
        verdict=TaskVerdict(verdict),
        note=note,
    )


def proxy_view(row: list[Any]) -> ProxyView | None:
    """A row of `view.lua`'s proxies; None when its registration can't be read."""
    name, text, live, draining, age_s, used, lanes, enabled, limit, lost, note, left = row
    try:
        registration = _registration(text)
    except ValidationError as error:
        _warn_once(f"proxy {name} gets no tasks: this version can't read its registration ({_first(error)})")
        return None
    return ProxyView(
        name=name,
        registration=registration,
        orders=proxy_orders(lanes, enabled, limit),
        live=bool(live),
        draining=draining == "1",
        heartbeat_age_s=float(age_s),
        slots_used=int(used),
        lost_leases=int(lost),
        note=note,
        left=bool(left),
        refusal=why_not_served(registration.contract_version),
    )


def _registration(text: str) -> ProxyRegistration:
    """Of a proxy that is newer than this program, only what is known here: it gets no tasks, and is to be seen."""
    said = json.loads(text)
    if said.get("contract_version", 0) > CONTRACT_VERSION:
        text = json.dumps({key: value for key, value in said.items() if key in ProxyRegistration.model_fields})
    return ProxyRegistration.model_validate_json(text)


def proxy_orders(
    lanes: str | None, enabled: str | None, limit: str | None, server_time: str | None = None
) -> ProxyOrders:
    """What `orders:<name>` says; a proxy nobody has given orders yet is enabled and has only its own lane."""
    return ProxyOrders(
        lanes=tuple(json.loads(lanes or "[]")),
        enabled=enabled != "0",
        max_concurrent_tasks=int(limit) if limit else None,
        server_time=float(server_time) if server_time else None,
    )


def finished_task(row: list[Any]) -> FinishedTask:
    """A row of `finished.lua`."""
    (
        kind,
        title,
        state,
        epoch,
        counter,
        proxy,
        attempts,
        started,
        ended,
        outcome,
        checkpoint,
        note,
        history,
        deaths,
        last_log,
        task_id,
    ) = row
    result, failure = None, None
    try:
        if state == TaskState.DONE:
            result = TASK_RESULT.validate_json(outcome)
        elif state == TaskState.FAILED:
            if outcome:
                failure = TaskFailure.model_validate_json(outcome)
            else:
                failure = _quarantined(title, deaths, note, last_log) if deaths else _lost(title, attempts, note)
    except ValidationError as error:
        failure = _unreadable(title, proxy, error)
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
        result=result,
        failure=failure,
        checkpoint=checkpoint,
        history=_history(history),
    )


def _history(text: str | None) -> tuple[TaskAttempt, ...]:
    try:
        return _HISTORY.validate_json(text) if text else ()
    except ValidationError:
        return ()  # only reports look at it


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


def _quarantined(title: str, deaths: str, note: str, last_log: str) -> TaskFailure:
    failure = TaskFailure.of(
        QuarantinedError(
            title,
            why=f"{deaths} processes in a row died over it, at last: {note}",
            remedy="It isn't tried again by itself. Look at the last lines of its log; when the cause is gone, "
            "retry the run.",
        )
    )
    return failure.model_copy(update={"log": tuple(json.loads(last_log))})


def _unreadable(title: str, proxy: str, error: ValidationError) -> TaskFailure:
    return TaskFailure.of(
        UnreadableOutcomeError(
            title,
            why=f"this version can't read what {proxy} reported ({_first(error)})",
            remedy="Run the same version of proxyfleet on the server and its proxies.",
        )
    )


def _progress(text: str) -> DiskProgress | None:
    try:
        return DiskProgress.model_validate_json(text)
    except ValidationError:
        return None  # only people look at it


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@functools.lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    log.warning(message)
