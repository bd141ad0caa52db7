"""Keeping a mover to its share of the limits that traffic rules set, while it works."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.ledger import Claim, Fence, Flow, Ledger
from proxy_worker.mover.pacing import Pacing, Use
from proxy_worker.node.bench import Bench

log = logging.getLogger(__name__)

ASK_EVERY_S: Final = 1.0
"""With what it takes others to hear of it, and to confirm, changes are in force within 5 s."""
_REMEMBERED: Final = 3
"""Seconds in which it has to be content before it leaves anything to others: it stores by fits and starts."""
_HEADROOM: Final = 1.1
_STEPS_PER_DOUBLING: Final = 4
"""What is wanted is rounded up: the fewer different wishes, the sooner Redis has shared a limit."""
_LEAST_WANTED_BYTES_PER_S: Final = 4096.0


class ShareKeeper:
    """A context manager whose thread asks the ledger each second what the task may send, and sets the pace to it.

    Nothing may be sent before the first answer. Without further ones the last share is kept.
    """

    def __init__(self, ledger: Ledger, fence: Fence, flow: Flow, job: str) -> None:
        """`job` is whom limits are shared equally between."""
        self.pacing = Pacing(0.0)
        self._ledger = ledger
        self._fence = fence
        self._flow = flow
        self._job = job
        self._wishes: deque[float | None] = deque([None], maxlen=_REMEMBERED)
        self._serial = 0
        self._allowed: float | None = 0.0
        self._told = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"share {fence.task_id}", daemon=True)

    @property
    def rate_bytes_per_s(self) -> float | None:
        """What it is allowed now; None: no rule holds."""
        return self._allowed

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._closing.is_set() and self.ask():
            self._closing.wait(ASK_EVERY_S)
            self._wishes.append(_wish(self.pacing.use()))

    def ask(self) -> bool:
        """Ask once, or twice where less than before is confirmed. False when the task is lost, and stands still."""
        try:
            while True:
                self._serial += 1
                share = self._ledger.share(
                    self._fence,
                    self._flow,
                    self._job,
                    serial=self._serial,
                    allowed=self._allowed or 0.0,
                    wanted=self._wanted(),
                )
                before, self._told = self._allowed, False
                self._keep_to(share.bytes_per_s)
                if share.lost:
                    return False
                if before is None or share.bytes_per_s is None or share.bytes_per_s >= before:
                    return True
        except LedgerError as error:
            if not self._told:
                log.warning("%s: keeps to its last share of traffic rules' limits: %s", self._fence.task_id, error)
                self._told = True
            return True

    def _keep_to(self, bytes_per_s: float | None) -> None:
        if (bytes_per_s is None) != (self._allowed is None):
            log.info(
                "%s: %s", self._fence.task_id, "no limit" if bytes_per_s is None else "limited by traffic rules"
            )
        self._allowed = bytes_per_s
        self.pacing.keep_to(bytes_per_s)

    def _wanted(self) -> float | None:
        """None: more than it has."""
        wishes = [wish for wish in self._wishes if wish is not None]
        if len(wishes) < len(self._wishes):
            return None
        steps = math.ceil(math.log2(max(*wishes, _LEAST_WANTED_BYTES_PER_S) * _HEADROOM) * _STEPS_PER_DOUBLING)
        return float(2 ** (steps / _STEPS_PER_DOUBLING))


def _wish(use: Use) -> float | None:
    return None if use.waited or use.seconds <= 0 else use.spent_bytes / use.seconds


@contextmanager
def kept_to_share(
    bench: Bench, claim: Claim, kind: TrafficKind, repository: RepositoryReference, job: str
) -> Iterator[Pacing]:
    """What a mover has to keep to while it exchanges data with a repository for a job."""
    with kept_to_flow(bench, claim, Flow(kind, repository.name, bench.identity.name), job) as pacing:
        yield pacing


@contextmanager
def kept_to_flow(bench: Bench, claim: Claim, flow: Flow, job: str) -> Iterator[Pacing]:
    """What a mover has to keep to while it sends what is in this flow."""
    with ShareKeeper(bench.ledger, claim.fence, flow, job) as keeper:
        yield keeper.pacing
