"""Performs steps in threads of its own, so that a vCenter that is slow or gone holds nobody else up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.vsphere.faults import is_locked_out
from proxy_worker.vsphere.session import Patience, Sessions, read_password
from proxy_worker.vsphere.tasks import Waiting
from scheduler.vcenters.account import Account
from scheduler.vcenters.steps import Access, StepCall, StepKind, StepOutcome

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S: Final = 15.0
"""How long steps may take to end when the scheduler stops; what goes on after that is found at the next start."""
_DEFAULT_PATIENCE: Final = Patience()
_DEFAULT_WAITING: Final = Waiting()


@dataclass(frozen=True, slots=True)
class _Open:
    """The logins of one account."""

    account: Account
    password: str
    sessions: Sessions


class Executor:
    """Performs steps. `start`, `cancel`, `finished` and `close` belong to one thread, the service's."""

    def __init__(
        self,
        kinds: Iterable[StepKind[Any, Any]],
        secrets_dir: Path,
        *,
        patience: Patience = _DEFAULT_PATIENCE,
        waiting: Waiting = _DEFAULT_WAITING,
    ) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self.installation = ""
        """Set by the service before the first step."""
        self._secrets_dir = secrets_dir
        self._patience = patience
        self._waiting = waiting
        self._lock = threading.Lock()
        self._opened: dict[str, _Open] = {}
        self._running: dict[str, tuple[StepCall, threading.Event, threading.Thread]] = {}
        self._ended: queue.SimpleQueue[StepOutcome | BaseException] = queue.SimpleQueue()

    @property
    def running(self) -> frozenset[str]:
        """The ids of steps whose outcome hasn't been taken yet."""
        return frozenset(self._running)

    def busy(self) -> Counter[str]:
        """How many steps go on, by vCenter."""
        return Counter(call.account.name for call, _, _ in self._running.values())

    def start(self, call: StepCall) -> None:
        """Perform a step that the journal calls started; one that runs already is left to it."""
        if call.step_id in self._running:
            return
        cancelled = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(call, cancelled), name=f"vcenter step {call.step_id}", daemon=True
        )
        self._running[call.step_id] = (call, cancelled, thread)
        thread.start()

    def cancel(self, step_id: str) -> None:
        """Tell a step to stop where it can; its outcome still comes."""
        if step_id in self._running:
            self._running[step_id][1].set()

    def finished(self) -> list[StepOutcome]:
        """The outcomes since the last time."""
        outcomes = []
        while not self._ended.empty():
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                raise ended
            self._running.pop(ended.step_id, None)
            outcomes.append(ended)
        return outcomes

    def wait_for_one(self, timeout_s: float) -> None:
        """Return as soon as a step has ended, at the latest after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        for _, _, thread in list(self._running.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
            if not self._ended.empty():
                return

    def close(self, timeout_s: float = CLOSE_WITHIN_S) -> None:
        """Let running steps end, for at most `timeout_s`, and log out."""
        deadline = time.monotonic() + timeout_s
        for _, _, thread in list(self._running.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            opened, self._opened = list(self._opened.values()), {}
        for one in opened:
            one.sessions.close()

    def _run(self, call: StepCall, cancelled: threading.Event) -> None:
        try:
            outcome: StepOutcome | BaseException = self._perform(call, cancelled)
        except Exception as error:
            # A mistake in one step, or an answer nobody foresaw, must not end the service and all it does.
            logger.exception("step %s of vCenter %s", call.kind, call.account.name)
            why = f"{type(error).__name__}: {error}"
            failure = TaskFailure(
                code="internal",
                what=f"{call.kind} at vCenter {call.account.name}",
                why=why,
                remedy="The scheduler's log says more.",
            )
            outcome = StepOutcome(call.step_id, failure=failure)
        except BaseException as error:
            outcome = error
        self._ended.put(outcome)

    def _perform(self, call: StepCall, cancelled: threading.Event) -> StepOutcome:
        kind = self.kinds[call.kind]
        try:
            request = kind.request.model_validate_json(call.request)
            opened = self._open(call.account)
            with opened.sessions.borrow() as session:
                access = Access(
                    account=call.account,
                    endpoint=opened.sessions.endpoint,
                    session=session,
                    password=opened.password,
                    installation=self.installation,
                    waiting=replace(self._waiting, cancelled=cancelled),
                )
                return StepOutcome(call.step_id, answer=kind.perform(access, request))
        except ProxyfleetError as error:
            if is_locked_out(error):
                self._forget(call.account)  # the next step reads the password file anew
            return StepOutcome(call.step_id, failure=TaskFailure.of(error))

    def _open(self, account: Account) -> _Open:
        with self._lock:
            known = self._opened.get(account.name)
            if known is not None and known.account == account:
                return known
            endpoint = account.endpoint(self._patience)
            password = read_password(endpoint, self._secrets_dir)
            opened = self._opened[account.name] = _Open(account, password, Sessions(endpoint, password))
        if known is not None:
            known.sessions.close()  # it is declared otherwise since
        return opened

    def _forget(self, account: Account) -> None:
        with self._lock:
            known = self._opened.get(account.name)
            if known is None or known.account != account:
                return
            del self._opened[account.name]
        known.sessions.close()
