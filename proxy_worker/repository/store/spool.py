"""Objects that are kept here until they are whole, and sent to another machine then.

A cut costs what of one was sent, never the work behind it; several are under way at once. They are kept in memory,
which is used again and again, while there is room, and in a file without a name beyond. Over a link that keeps up,
no more than one or two are under way, and the page cache would cost a quarter of what all of the sending does.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final, Protocol

import xxhash

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.link.frames import PAYLOAD_BYTES, framed
from proxy_worker.repository.store import Buffer, Pace

_LOOK_AGAIN_S: Final = 0.05
ROOM_BYTES: Final = 128 << 20
"""Of memory, for all objects of a store together."""


class Room:
    """Buffers for a frame's payload each, made when first needed and kept. Thread-safe."""

    def __init__(self, size_bytes: int = ROOM_BYTES) -> None:
        self._lock = threading.Lock()
        self._unmade = size_bytes // PAYLOAD_BYTES
        self._free: list[memoryview] = []

    def take(self) -> memoryview | None:
        """A buffer, if there is one."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if not self._unmade:
                return None
            self._unmade -= 1
        return memoryview(mmap.mmap(-1, PAYLOAD_BYTES))

    def give_back(self, buffers: list[memoryview]) -> None:
        """The reverse."""
        with self._lock:
            self._free += buffers


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


@dataclass(slots=True)
class _Piece:
    """The payload of a frame, in a buffer, or in the file, after those before it."""

    buffer: memoryview | None
    length: int = 0


class SpooledObject:
    """An object of a store that is far away. Implements `StoreWriter` and `Interruptible`."""

    def __init__(self, store: Recipient, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self.given_up = threading.Event()
        self._store = store
        self._pieces: list[_Piece] = []
        self._file: IO[bytes] | None = None
        self._sending: threading.Thread | None = None
        self._outcome: bool | ProxyfleetError = StoreError(
            f"can't write {name} in {store.location}", why="it broke off"
        )

    def digest(self) -> bytes:
        """XXH3-128 of all that was written, from what is kept until it is sent."""
        digest = xxhash.xxh3_128()
        for payload in self._payloads():
            digest.update(payload)
        return digest.digest()

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`."""
        view = memoryview(data)
        self.size_bytes += len(view)
        while view:
            if not self._pieces or self._pieces[-1].length == PAYLOAD_BYTES:
                self._pieces.append(_Piece(self._store.room.take()))
            piece = self._pieces[-1]
            count = min(len(view), PAYLOAD_BYTES - piece.length)
            if piece.buffer is not None:
                piece.buffer[piece.length : piece.length + count] = view[:count]
            else:
                with self._spooling():
                    if self._file is None:
                        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent, or dropped
                    self._file.write(view[:count])
            piece.length += count
            view = view[count:]

    def end(self) -> None:
        """See `StoreWriter`: sends it, beside others."""
        if self._sending is None:
            if self._file is not None:
                with self._spooling():
                    self._file.flush()
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
        for payload in self._payloads():
            if not self._await_leave(len(payload)):
                return
            yield framed(payload)

    def _payloads(self) -> Iterator[bytes | memoryview]:
        offset = 0
        for piece in self._pieces:
            if piece.buffer is not None:
                yield piece.buffer[: piece.length]
            elif self._file is not None:
                yield os.pread(self._file.fileno(), piece.length, offset)
                offset += piece.length

    def _await_leave(self, count: int) -> bool:
        """Wait until so many bytes may be sent; False when it was given up."""
        while (pace := self._store.pace) is not None and not pace.ready():
            self._store.kept_waiting()
            if self.given_up.wait(_LOOK_AGAIN_S):
                return False
        if pace is not None:
            pace.spend(count)
        return not self.given_up.is_set()

    @contextmanager
    def _spooling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"can't spool {self.name} in {tempfile.gettempdir()}",
                why=error.strerror or str(error),
                remedy="Set TMPDIR to a folder with room for some packs.",
            ) from error

    def _send(self) -> None:
        try:
            self._outcome = self._store.send(self)
        except ProxyfleetError as error:
            self._outcome = error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give back what it takes up. Idempotent."""
        pieces, self._pieces = self._pieces, []
        self._store.room.give_back([piece.buffer for piece in pieces if piece.buffer is not None])
        if self._file is not None:
            self._file.close()
