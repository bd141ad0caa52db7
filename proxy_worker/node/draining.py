"""Ending in order: one byte that the main process sets and all pool processes see."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from typing import Final

log = logging.getLogger(__name__)

STUCK_S: Final = 60.0
"""How long after handing back a task may still take to stop before the proxy ends without it."""


class Draining:
    """Shared memory made before the fork: needs no broker, no signal to children, and nothing to clean up.

    While draining, disks go on and nothing new is taken; later they are handed back.
    """

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)
        self._timers: list[threading.Timer] = []

    @property
    def draining(self) -> bool:
        """Whether the proxy takes nothing new."""
        return self._byte[0] > 0

    @property
    def handing_back(self) -> bool:
        """Whether running tasks have to be handed back now, with their checkpoints."""
        return self._byte[0] > 1

    def begin(self) -> None:
        """Take nothing new."""
        self._byte[0] = max(1, self._byte[0])

    def hand_back(self) -> None:
        """Hand back what runs."""
        self._byte[0] = 2

    def ask(self, timeout_s: float) -> None:
        """Drain for `timeout_s`, then hand back; asked a second time, hand back at once.

        A task that doesn't stop even then, e.g. in a hung read, is left to its lease: the process ends.
        """
        if self.draining:
            self.hand_back()
            return
        self.begin()
        for delay_s, action in ((timeout_s, self.hand_back), (timeout_s + STUCK_S, _give_up)):
            timer = threading.Timer(delay_s, action)
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def settle(self) -> None:
        """Nothing runs any more: forget the deadlines, so that they don't end this process."""
        while self._timers:
            self._timers.pop().cancel()


def _give_up() -> None:
    log.error("a task does not stop; leaving it to its lease")
    logging.shutdown()
    os._exit(1)
