"""Keeping what a mover exchanges with its repository to a rate that may change at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy_worker.repository.store import PacedStore

BURST_S: Final = 0.25
"""What wasn't used for so long may be made up for: more than a mover sleeps before it looks again."""


@dataclass(frozen=True, slots=True)
class Use:
    """What became of a rate since it was last asked for."""

    seconds: float
    spent_bytes: int
    waited: bool
    """Whether more would have been spent."""


class Pacing:
    """A token bucket that may be overdrawn: what is moved is spent afterwards, and the debt is waited out.

    So that nobody is stuck inside of a store: who has to wait asks `ready` and can be stopped meanwhile. Any thread
    may call.
    """

    def __init__(self, bytes_per_s: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """None: no limit. `clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = bytes_per_s
        self._balance_bytes = 0.0
        self._filled_at_s = self._asked_at_s = clock()
        self._spent_bytes = 0
        self._waited = False

    def keep_to(self, bytes_per_s: float | None) -> None:
        """Go on at another rate; 0 stands still, None has no limit and forgets what was overdrawn."""
        with self._lock:
            self._fill()
            self._rate = bytes_per_s
            if bytes_per_s is None:
                self._balance_bytes = 0.0

    def spend(self, count: int) -> None:
        """Count bytes that were moved."""
        with self._lock:
            self._spent_bytes += count
            if self._rate is not None:
                self._fill()
                self._balance_bytes -= count

    def ready(self) -> bool:
        """Whether more may be moved now."""
        with self._lock:
            if self._rate is None:
                return True
            self._fill()
            ready = self._balance_bytes >= 0 and self._rate > 0
            self._waited |= not ready
            return ready

    def use(self) -> Use:
        """What was spent since this was last asked."""
        with self._lock:
            now_s = self._clock()
            use = Use(now_s - self._asked_at_s, self._spent_bytes, self._waited)
            self._asked_at_s, self._spent_bytes, self._waited = now_s, 0, False
            return use

    def _fill(self) -> None:
        now_s = self._clock()
        if self._rate is not None:
            earned = (now_s - self._filled_at_s) * self._rate
            self._balance_bytes = min(self._balance_bytes + earned, self._rate * BURST_S)
        self._filled_at_s = now_s


def left_to_mover(pacing: Pacing, store: object) -> Pacing:
    """What is left for a mover to keep to: nothing where the store sends later, and keeps to `pacing` then."""
    if not isinstance(store, PacedStore):
        return pacing
    store.pace = pacing
    return Pacing()
