"""Calls without a time limit: over a slow link they may take hours, but not once nothing crosses any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

LONGEST_SILENCE_S: Final = 300.0
"""Five streams whose frames of a MiB share 150 kbit/s are within it."""
_LOOK_S: Final = 0.5
"""As soon as this it is seen that less is to be borne."""


class Crossing:
    """The messages of one call, and when the last of them got across."""

    def __init__(self) -> None:
        self.heard_at_s = time.monotonic()

    def each(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """The messages; gRPC asks for the next to send when the one before is on its way."""
        for message in messages:
            yield message
            self.heard_at_s = time.monotonic()


class SilenceWatch:
    """Ends calls that have been silent for too long, by a thread that is there while there are calls.
    Thread-safe."""

    def __init__(self, longest_s: float = LONGEST_SILENCE_S) -> None:
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._watched: dict[Crossing, Callable[[], Any]] = {}
        self._watching = False

    @contextmanager
    def over(self, crossing: Crossing, end: Callable[[], Any]) -> Iterator[Crossing]:
        """Watch a call for the length of the block; `end`, which must return at once, comes from another thread."""
        with self._lock:
            self._watched[crossing] = end
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="link silence", daemon=True).start()
        try:
            yield crossing
        finally:
            with self._lock:
                self._watched.pop(crossing, None)

    def shorten(self, longest_s: float) -> None:
        """Bear no longer silence from now on, also in calls that are watched already. Takes no lock: it may come
        from a signal's handler."""
        self._longest_s = min(self._longest_s, longest_s)

    def _watch(self) -> None:
        while True:
            with self._lock:
                if not self._watched:
                    self._watching = False
                    return
                limit_s = time.monotonic() - self._longest_s
                silent = [crossing for crossing in self._watched if crossing.heard_at_s <= limit_s]
                ends = [self._watched.pop(crossing) for crossing in silent]
                oldest_s = min((crossing.heard_at_s for crossing in self._watched), default=limit_s)
            for end in ends:
                end()
            time.sleep(min(oldest_s - limit_s, _LOOK_S))
