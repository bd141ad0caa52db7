"""Waiting for vCenter's own tasks: their state, progress, result and error, read as leaf paths."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from pyVmomi import vim, vmodl

from proxy_worker.contract.errors import CancelledError, SourceError
from proxy_worker.vsphere.faults import FAULTS, translate
from proxy_worker.vsphere.properties import ObjectProperties, read
from proxy_worker.vsphere.session import Session

_PATHS: Final = ("info.state", "info.progress", "info.result", "info.error", "info.cancelable")
_ENDS: Final = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)


class VsphereTaskTimeoutError(SourceError):
    """A vCenter task isn't done in the time it was given; it may still go on."""


class TaskFault(Exception):  # noqa: N818  # not an error a user sees: its fault is what gets a name
    """How a task failed, for a caller that tells faults apart before it names them."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        super().__init__(str(fault))


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a task is waited for."""

    timeout_s: float = 3600.0
    """Removing a snapshot of a busy VM takes this long."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0
    progress: Callable[[int], None] | None = None
    """Told the percentage whenever it has changed."""
    cancelled: threading.Event | None = None
    """When set, the task is cancelled where vCenter can, waited for, and `CancelledError` raised."""


def finish(session: Session, what: str, start: Callable[[], Any], waiting: Waiting | None = None) -> Any:
    """Start a vCenter task and wait for it; returns its result, or raises the named error for how it failed."""
    try:
        return attempt(session, what, start, waiting)
    except TaskFault as failed:
        raise translate(what, failed.fault) from failed.fault


def attempt(session: Session, what: str, start: Callable[[], Any], waiting: Waiting | None = None) -> Any:
    """As `finish`, but a fault comes as `TaskFault`, whether the call or the task failed."""
    return watch(session, what, session.call(what, lambda: _started(start)), waiting)


def watch(session: Session, what: str, task: Any, waiting: Waiting | None = None) -> Any:
    """Wait for a task that was started: its result; raises `TaskFault`, `CancelledError`, or that it isn't done."""
    waiting = waiting or Waiting()
    deadline, pause = time.monotonic() + waiting.timeout_s, waiting.first_pause_s
    cancelled, never = waiting.cancelled or threading.Event(), threading.Event()
    told, asked = -1, False
    while True:
        state = session.call(what, lambda: read(session, [task], _PATHS), repeatable=True)[0]
        if state["info.state"] in _ENDS:
            return _outcome(what, state, cancelled=asked)
        if waiting.progress and (percent := state["info.progress"]) is not None and percent != told:
            told = percent
            waiting.progress(percent)
        if cancelled.is_set() and not asked:
            asked = True
            if state["info.cancelable"]:
                session.call(what, task.CancelTask)
        if time.monotonic() + pause > deadline:
            raise VsphereTaskTimeoutError(
                what,
                why=f"vCenter's task isn't done after {waiting.timeout_s:g} s",
                remedy="Look at the VM's recent tasks in vCenter.",
            )
        (never if asked else cancelled).wait(pause)
        pause = min(pause * 2, waiting.longest_pause_s)


def _outcome(what: str, state: ObjectProperties, *, cancelled: bool) -> Any:
    if cancelled:
        raise CancelledError(what, why="it was cancelled, and vCenter's task has ended")
    if state["info.state"] == vim.TaskInfo.State.error:
        raise TaskFault(_fault(state["info.error"]))
    return state["info.result"]


def _started(start: Callable[[], Any]) -> Any:
    try:
        return start()
    except vim.fault.NotAuthenticated:
        raise
    except FAULTS as fault:
        raise TaskFault(fault) from fault


def _fault(error: Any) -> Exception:
    if error is None:
        return vmodl.RuntimeFault()
    fault: Any = error.fault if isinstance(error, vmodl.LocalizedMethodFault) else error
    return cast("Exception", fault)
