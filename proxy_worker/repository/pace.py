"""Keeping a long piece of work from taking all of a store's bandwidth, and letting it be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LOOK_AGAIN_S: Final = 1.0


class Pace:
    """Called with each number of bytes moved or read: waits until the limit allows them."""

    def __init__(self, bytes_per_s: int | None, go_on: Callable[[], None]) -> None:
        """`go_on` is called at least once a second while waiting, and ends the work by raising."""
        self._limit = bytes_per_s
        self._go_on = go_on
        self._started = time.monotonic()
        self._bytes = 0

    def __call__(self, count: int) -> None:
        self._go_on()
        self._bytes += count
        while self._limit and (ahead := self._bytes / self._limit - (time.monotonic() - self._started)) > 0:
            time.sleep(min(ahead, LOOK_AGAIN_S))
            self._go_on()
