"""The Celery entry points, one for each kind of task: claim, verify, move, report.

A message is `(task_id, dispatch_number)` and nothing in it is trusted: the ledger says whether it is in force,
and the scheduler's signature says what is to be done.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, Task

from proxy_worker.contract.errors import CancelledError, LedgerError, ProxyfleetError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure, TaskResult
from proxy_worker.contract.signing import SpecificationError, SpecificationExpiredError, verify
from proxy_worker.contract.specification import TaskBody
from proxy_worker.ledger import Claim, Refused
from proxy_worker.node.bench import Bench
from proxy_worker.node.bodies import perform
from proxy_worker.node.events import Announcer, figures
from proxy_worker.node.lease import AFTER_FAILURE_S, Ending, LeaseKeeper, awake_s, until_answered
from proxy_worker.node.memory import give_back
from proxy_worker.node.obeyed import ClockAheadError, MemoryLostError
from proxy_worker.node.subject import ids_of_body, ids_of_task
from proxy_worker.node.tally import DiskTally
from proxy_worker.node.task_log import TaskLog
from proxy_worker.program.logs import about, learn

log = logging.getLogger(__name__)

NOT_HERE_NOW: Final = (SpecificationExpiredError, ClockAheadError, MemoryLostError)
"""Errors that say nothing of the task, only of this proxy, or of Redis' clock."""
NO_THREAD: Final = "can't start new thread"
"""How Python calls it when there is no memory, or no process left, for a thread."""
REST_POLL_S: Final = 0.2
CLAIM_PATIENCE_S: Final = 10.0
"""How long a message is held while the ledger doesn't answer; its deadline makes the task ready again anyway."""


class UnexpectedError(ProxyfleetError):
    """A defect of this program; the proxy's log has the traceback."""


class OutOfMemoryError(ProxyfleetError):
    """The proxy's process was refused memory while it worked on a task."""

    retryable = True


class TaskEndedError(Exception):
    """Makes Flower and Celery's log show a task as failed; the reason is with the ledger already."""


@dataclass(frozen=True)
class Message:
    """What came from a lane. Everything in it may be forged."""

    task_id: str
    number: int
    kind: TaskKind
    lane: str

    def __str__(self) -> str:
        return f"{self.task_id}.{self.number} of kind {self.kind} on {self.lane}"


@dataclass(frozen=True)
class _Outcome:
    """How a held task ended: what the ledger is told, and one line for people."""

    tell: Callable[[], bool]
    line: str
    failed: bool = False
    handed_back: bool = False
    result: TaskResult | None = None

    @property
    def word(self) -> str:
        """As it is counted."""
        return "failed" if self.failed else "handed back" if self.handed_back else "done"


def enlist(app: Celery, bench: Bench) -> None:
    """Give `app` a task for every kind there is."""
    announcer = Announcer(app)
    for kind in TaskKind:
        _enlist(app, bench, announcer, kind)


def task_and_number(arguments: Any) -> tuple[str, int] | None:
    """What the arguments of a message are, if they are what they should be."""
    match arguments:
        case [str(task_id), int(number)] if not isinstance(number, bool):
            return task_id, number
    return None


def _enlist(app: Celery, bench: Bench, announcer: Announcer, kind: TaskKind) -> None:
    def run(task: Task, *_arguments: object, **_unexpected: object) -> str:
        return _handle(task, bench, announcer, kind)

    # Arguments are not checked against a signature: a malformed message is refused like any other forged one.
    app.task(name=str(kind), bind=True, typing=False, throws=(TaskEndedError,))(run)


def _handle(task: Task, bench: Bench, announcer: Announcer, kind: TaskKind) -> str:
    lane = task.request.delivery_info.get("routing_key") or ""
    named = task_and_number(task.request.args)
    if named is None or task.request.kwargs:
        log.warning("refused a message of kind %s on %s: its arguments are not (task, number)", kind, lane)
        return "refused: malformed"
    message = Message(*named, kind, lane)
    asked_at_s = awake_s()
    claim = _claim(bench, message)
    if isinstance(claim, Refused):
        log.log(logging.INFO if claim.requeued else logging.WARNING, "refused %s: %s", message, claim.code)
        return f"refused: {claim.code}"
    task_log = TaskLog(bench.configuration.state_dir, message.task_id, message.number)
    disk_tally = DiskTally(bench.tally, kind, resumed=claim.checkpoint is not None)
    subject = about(**ids_of_task(message.task_id, kind))
    with _DefectsReported(bench, claim), subject, task_log:
        announce = functools.partial(announcer.announce, task.request.hostname, task.request.id, claim.title)

        def tell_progress(progress: DiskProgress) -> None:
            task_log.note(progress)
            disk_tally.note(progress)
            announce(progress)

        keeper = LeaseKeeper(
            bench.ledger, claim, claimed_at_s=asked_at_s, draining=bench.draining, on_progress=tell_progress
        )
        log.info("%s: begins, as task %s", claim.title, message)
        with keeper:
            outcome = _work(bench, claim, keeper, message)
        accepted = _tell(bench, claim, outcome.tell)
        disk_tally.end(outcome.word if accepted else "lost", outcome.result)
        log.info("%s: %s%s", claim.title, outcome.line, "" if accepted else " (no longer this proxy's task)")
    if kind.takes_slot:
        give_back()
    if outcome.failed:
        raise TaskEndedError(outcome.line)
    return outcome.line


def _claim(bench: Bench, message: Message) -> Claim | Refused:
    token = secrets.token_hex(16)
    deadline_s = awake_s() + CLAIM_PATIENCE_S
    while True:
        try:
            return bench.ledger.claim(
                message.task_id,
                message.number,
                kind=message.kind,
                lane=message.lane,
                identity=bench.identity,
                token=token,
            )
        except LedgerError as error:
            if awake_s() > deadline_s or not error.retryable:
                log.warning("could not claim %s: %s", message, error)
                return Refused("ledger-unavailable", requeued=False)
            time.sleep(AFTER_FAILURE_S)


def _work(bench: Bench, claim: Claim, keeper: LeaseKeeper, message: Message) -> _Outcome:
    ledger, fence = bench.ledger, claim.fence
    began_s = awake_s()
    try:
        result = perform(_verified(bench, claim, message), bench, claim, keeper)
    except NOT_HERE_NOW as error:
        return _not_now(bench, claim, keeper, error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and NO_THREAD not in str(error):
            raise
        bench.forget_repositories()
        exhausted = OutOfMemoryError(
            claim.title,
            why=f"proxy {bench.identity.name} has no memory left for it",
            remedy="Give the proxy more memory, or fewer max_concurrent_tasks: about 1 GiB for each.",
        )
        return _Outcome(lambda: ledger.fail(fence, TaskFailure.of(exhausted)), str(exhausted), failed=True)
    except ProxyfleetError as error:
        if keeper.ending is Ending.LOST:
            return _Outcome(lambda: False, f"stopped, its lease was lost: {error}", failed=True)
        if isinstance(error, CancelledError) and keeper.ending is Ending.HANDED_BACK:
            note = f"handed back by {bench.identity.name}, which stops"
            checkpoint = keeper.last_checkpoint
            return _Outcome(lambda: ledger.release(fence, checkpoint, note), "handed back", handed_back=True)
        if not isinstance(error, CancelledError):
            bench.forget_repositories()
            bench.failures_in_a_row += 1
            if error.retryable and bench.failures_in_a_row > 1:
                _rest(keeper, until_s=began_s + claim.lease_s / 3)
        failure = TaskFailure.of(error)
        return _Outcome(lambda: ledger.fail(fence, failure), str(error), failed=True)
    bench.failures_in_a_row = 0
    return _Outcome(lambda: ledger.complete(fence, result), figures(result), result=result)


def _not_now(bench: Bench, claim: Claim, keeper: LeaseKeeper, error: ProxyfleetError) -> _Outcome:
    """Hand a task back that nothing was done for: it is this proxy's clock or disk that is wrong, not the task."""
    log.error("%s: handed back: %s", claim.title, error)
    _rest(keeper, until_s=awake_s() + AFTER_FAILURE_S)  # by then the heart says that this proxy is unfit
    note = f"{bench.identity.name} could not take it: {error.why or error.what}"
    return _Outcome(
        lambda: bench.ledger.release(claim.fence, claim.checkpoint, note), "handed back", handed_back=True
    )


def _rest(keeper: LeaseKeeper, *, until_s: float) -> None:
    """Keep the slot for a while, unless the task is to stop.

    A proxy that fails at once, e.g. since it has lost a mount, must not get all the tasks that others could do.
    """
    while awake_s() < until_s and keeper.ending is None:
        time.sleep(REST_POLL_S)


def _verified(bench: Bench, claim: Claim, message: Message) -> TaskBody:
    specification = verify(
        claim.signed,
        bench.public_keys,
        task_id=message.task_id,
        dispatch_number=message.number,
        now=claim.server_time,
    )
    for what, signed, met in (
        ("kind", specification.body.kind, message.kind),
        ("lane", specification.audience, message.lane),
        ("epoch", specification.epoch, claim.fence.epoch),
    ):
        if signed != met:
            raise SpecificationError(
                f"specification of task {message.task_id}", why=f"it was signed for {what} {signed}, not {met}"
            )
    bench.obeyed.admit(specification)
    learn(**ids_of_body(specification.body))
    return specification.body


def _tell(bench: Bench, claim: Claim, tell: Callable[[], bool]) -> bool:
    answer = until_answered(tell, what=claim.title, draining=bench.draining, patience_s=claim.lease_s)
    return answer is True


class _DefectsReported:
    """Tells the ledger of an error that nobody foresaw, so that it isn't tried again and again; lets it pass."""

    def __init__(self, bench: Bench, claim: Claim) -> None:
        self._bench = bench
        self._claim = claim

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        self._bench.forget_repositories()
        failure = TaskFailure.of(
            UnexpectedError(
                self._claim.title,
                why=f"unexpected {type(error).__name__}: {error}",
                remedy=f"Report it with the traceback in the log of {self._bench.identity.name}.",
            )
        )
        _tell(self._bench, self._claim, lambda: self._bench.ledger.fail(self._claim.fence, failure))
