"""Objects that are kept here until they are whole, and sent to another machine then.

A cut costs what of one was sent, never the work behind it; several are under way at once. They are kept in memory,
as the frames that will be sent, while there is room, and in a file without a name beyond. Over a link that keeps up
no more than one or two are under way, and the page cache would cost a quarter of what all of the sending does.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Final, Protocol

import xxhash

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.link.frames import CHECKSUM_BYTES, PAYLOAD_BYTES, framed
from proxy_worker.repository.store import Buffer, Pace

_LOOK_AGAIN_S: Final = 0.05
ROOM_BYTES: Final = 128 << 20
"""Of memory, for all objects of a store together."""


class Room:
    """What there is of memory. Thread-safe."""

    def __init__(self, size_bytes: int = ROOM_BYTES) -> None:
        self._left_bytes = size_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take so much, if there is."""
        with self._lock:
            if count > self._left_bytes:
                return False
            self._left_bytes -= count
            return True

    def give_back(self, count: int) -> None:
        """The reverse."""
        with self._lock:
            self._left_bytes += count


class Recipient(Protocol):
    """Where such objects go."""

    location: str
    room: Room
    pace: Pace | None
    """What sending keeps to."""

    def send(self, spooled: SpooledObject) -> bool:
        """Send an object that is whole; False if its name is taken."""

    def kept_waiting(self) -> None:
        """It is the pace that keeps an object from going on, not the way there."""


class SpooledObject:
    """An object of a store that is far away. Implements `StoreWriter` and `Interruptible`."""

    def __init__(self, store: Recipient, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self.given_up = threading.Event()
        self._store = store
        self._frames: list[bytes | int] = []
        """In memory, or the length of the next that is in the file."""
        self._in_memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._digest = xxhash.xxh3_128()
        self._sending: threading.Thread | None = None
        self._outcome: bool | ProxyfleetError = StoreError(
            f"can't write {name} in {store.location}", why="it broke off"
        )

    @property
    def digest(self) -> bytes:
        """XXH3-128 of all that was written."""
        return self._digest.digest()

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`."""
        view = memoryview(data)
        for start in range(0, len(view), PAYLOAD_BYTES):
            self._keep(view[start : start + PAYLOAD_BYTES])
        self._digest.update(data)
        self.size_bytes += len(data)

    def _keep(self, piece: memoryview) -> None:
        if self._store.room.take(len(piece)):
            self._in_memory_bytes += len(piece)
            self._frames.append(framed(piece))
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent, or dropped
            self._file.write(piece)
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"can't spool {self.name} in {tempfile.gettempdir()}",
                why=error.strerror or str(error),
                remedy="Set TMPDIR to a folder with room for some packs.",
            ) from error
        self._frames.append(len(piece))

    def end(self) -> None:
        """See `StoreWriter`: sends it, beside others."""
        if self._sending is None:
            self._sending = threading.Thread(target=self._send, name=f"send {self.name}", daemon=True)
            self._sending.start()

    def finish(self) -> bool:
        """See `StoreWriter`."""
        self.end()
        if self._sending:
            self._sending.join()
        if isinstance(self._outcome, ProxyfleetError):
            raise self._outcome
        return self._outcome

    def give_up(self) -> None:
        """See `Interruptible`."""
        self.given_up.set()

    def discard(self) -> None:
        """See `StoreWriter`; what is on its way is given up."""
        self.give_up()
        if self._sending is None:
            self._let_go()

    def frames(self) -> Iterator[bytes]:
        """All of it, at the store's pace; fewer when it is given up, which the other end takes for broken off."""
        offset = 0
        for frame in self._frames:
            length = frame if isinstance(frame, int) else len(frame) - CHECKSUM_BYTES
            if not self._await_leave(length):
                return
            if isinstance(frame, bytes):
                yield frame
            elif self._file is not None:
                yield framed(os.pread(self._file.fileno(), length, offset))
                offset += length

    def _await_leave(self, count: int) -> bool:
        """Wait until so many bytes may be sent; False when it was given up."""
        while (pace := self._store.pace) is not None and not pace.ready():
            self._store.kept_waiting()
            if self.given_up.wait(_LOOK_AGAIN_S):
                return False
        if pace is not None:
            pace.spend(count)
        return not self.given_up.is_set()

    def _send(self) -> None:
        try:
            self._outcome = self._store.send(self)
        except ProxyfleetError as error:
            self._outcome = error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give back what it takes up. Idempotent."""
        self._store.room.give_back(self._in_memory_bytes)
        self._in_memory_bytes = 0
        self._frames = []
        if self._file is not None:
            self._file.close()
