"""Room for requests: what all clients together may have in flight, so that nobody fills the memory.

Whoever is in the clients' networks may connect, before it names a share. So each client always has room for one
request, whatever the others do, and beyond that they all share what there is.
"""

from __future__ import annotations

import threading
from typing import Final

IN_COMMON: Final = 64
"""Requests beyond each client's first. They take a mebibyte each at most, and so do their answers."""
_OF_ONE: Final = 32
"""Requests of one client."""


class Room:
    """What the clients of a server have in common. Thread-safe."""

    def __init__(self, in_common: int = IN_COMMON) -> None:
        self.free = in_common
        self.changed = threading.Condition()


class Place:
    """One client's requests that are being read, are being done, or wait."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    def enter(self, timeout_s: float | None = None) -> bool:
        """Wait until there is room for one more request; False when there was none in that time."""
        room = self._room
        with room.changed:
            if not room.changed.wait_for(self._may_enter, timeout_s):
                return False
            room.free -= bool(self._held)
            self._held += 1
        return True

    def leave(self) -> None:
        """A request is done with."""
        room = self._room
        with room.changed:
            self._held -= 1
            room.free += bool(self._held)
            room.changed.notify_all()

    def _may_enter(self) -> bool:
        return not self._held or (self._held < _OF_ONE and self._room.free > 0)
