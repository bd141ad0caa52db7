"""The lease keeper: holds a task in the ledger for as long as its mover works, and tells the mover what to do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.ledger import Claim, Ledger, RenewAnswer
from proxy_worker.ledger.timings import Timings
from proxy_worker.mover.control import Verdict
from proxy_worker.node.draining import Draining

log = logging.getLogger(__name__)

AFTER_FAILURE_S: Final = 1.0
"""How soon to try again when the ledger didn't answer."""


class Ending(StrEnum):
    """Why a mover was told to stop."""

    CANCELLED = "cancelled"
    LOST = "lost"
    HANDED_BACK = "handed back"


def awake_s() -> float:
    """Seconds since boot, those of a suspended machine included: a frozen VM's leases run out all the same."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseKeeper:
    """Keeps one claim; a context manager, and the `Control` of the mover that works on it.

    A thread renews each third of the lease, sooner when there is news. The mover pauses when the lease has not
    been proven for two thirds of its length, goes on when it is, and stops when the ledger says that it is lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        *,
        claimed_at_s: float,
        draining: Draining,
        on_progress: Callable[[DiskProgress], None] = lambda _: None,
        progress_s: float = Timings().progress_s,
        clock: Callable[[], float] = awake_s,
    ) -> None:
        """`claimed_at_s` is when the claim was asked for, on `clock`.

        `on_progress` is called from the keeper's thread and must return at once.
        """
        self._ledger = ledger
        self._fence = claim.fence
        self._title = claim.title
        self._lease_s = claim.lease_s
        self._progress_s = progress_s
        self._draining = draining
        self._on_progress = on_progress
        self._clock = clock
        self._proven_at_s = claimed_at_s
        self._answer = RenewAnswer.OK
        self._news = threading.Condition()
        self._checkpoint: str | None = None
        self._progress: DiskProgress | None = None
        self._closing = False
        self._told = False
        self._thread = threading.Thread(target=self._keep, name=f"lease {claim.fence.task_id}", daemon=True)
        self.last_checkpoint = claim.checkpoint
        """What the next holder can go on from, as far as this one knows."""

    @property
    def ending(self) -> Ending | None:
        """Why the mover has to stop, if it has to."""
        if self._answer is RenewAnswer.LOST:
            return Ending.LOST
        if self._answer is RenewAnswer.CANCEL:
            return Ending.CANCELLED
        return Ending.HANDED_BACK if self._draining.handing_back else None

    def report(self, progress: DiskProgress) -> None:
        """Take news of the mover's progress to the ledger and to whoever watches events."""
        with self._news:
            self._progress = progress
            self._news.notify()

    def checkpoint(self, sealed: str) -> None:
        """Take a checkpoint to the ledger, soon."""
        with self._news:
            self._checkpoint = self.last_checkpoint = sealed
            self._news.notify()

    def verdict(self) -> Verdict:
        """What the mover is to do, from memory."""
        if self.ending is not None:
            return Verdict.STOP
        return Verdict.PAUSE if self._unproven or self._answer is RenewAnswer.PAUSE else Verdict.RUN

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    def _keep(self) -> None:
        due_s = self._proven_at_s + self._lease_s / 3
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._has_news, self._until(due_s))
                if self._closing:
                    return
                checkpoint, progress = self._checkpoint, self._progress
                self._checkpoint = self._progress = None
            due_s = self._renew(checkpoint, progress)
            if self._answer is RenewAnswer.LOST:
                return
            with self._news:
                self._news.wait_for(lambda: self._closing, min(self._progress_s, self._until(due_s)))

    @property
    def _has_news(self) -> bool:
        return self._checkpoint is not None or self._progress is not None

    @property
    def _unproven(self) -> bool:
        return self._clock() - self._proven_at_s >= self._lease_s * 2 / 3

    def _until(self, due_s: float) -> float:
        return max(0.0, due_s - self._clock())

    def _renew(self, checkpoint: str | None, progress: DiskProgress | None) -> float:
        """Renew once; answers when to do it again, if there is no news before."""
        asked_at_s = self._clock()
        try:
            answer = self._ledger.renew(self._fence, checkpoint, progress)
        except LedgerError as error:
            if self._unproven and not self._told:
                self._told = True
                log.warning("%s: paused, its lease can't be renewed: %s", self._title, error)
            with self._news:
                self._checkpoint = self._checkpoint or checkpoint
            return self._clock() + AFTER_FAILURE_S
        if answer is not RenewAnswer.LOST:
            self._proven_at_s = asked_at_s
        if answer is not self._answer:
            log.info("%s: the ledger says %s", self._title, answer)
        self._answer, self._told = answer, False
        if progress is not None:
            self._on_progress(progress)
        return asked_at_s + self._lease_s / 3


def until_answered(call: Callable[[], bool], *, what: str, draining: Draining, patience_s: float) -> bool | None:
    """Repeat a report to the ledger until it is answered, and return the answer.

    While the proxy hands its tasks back, and against a refusal such as a wrong password, patience ends after
    `patience_s`: None, and the lease has to run out.
    """
    started_s = awake_s()
    told = False
    while True:
        try:
            return call()
        except LedgerError as error:
            hopeless = draining.handing_back or not error.retryable
            if hopeless and awake_s() - started_s > patience_s:
                log.error("%s: gave up reporting: %s", what, error)  # noqa: TRY400 - the cause is in the message
                return None
            if not told:
                log.warning("%s: waiting for the ledger: %s", what, error)
                told = True
            time.sleep(AFTER_FAILURE_S)
