"""What lets calls of a session in, until it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxy_worker.replication.errors import SessionEndedError


@dataclass
class Gate:
    """Counts calls at work, and lets none in once it is shut. Thread-safe."""

    _condition: threading.Condition = field(default_factory=threading.Condition)
    _inside: int = 0
    _shut: bool = False

    @contextmanager
    def inside(self, what: str) -> Iterator[None]:
        """Be inside for this block; raises `SessionEndedError` where nobody is let in any more to `what`."""
        with self._condition:
            if self._shut:
                raise SessionEndedError(f"{what} takes nothing more", why="its session has ended")
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    def shut(self) -> None:
        """Let nobody in any more, and wait for those inside."""
        with self._condition:
            self._shut = True
            self._condition.wait_for(lambda: self._inside == 0)
