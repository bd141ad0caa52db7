"""Objects that are spooled to a file without a name, and sent to another machine once they are whole.

A cut costs what of one was sent, never the work behind it; several are under way at once.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, Protocol

import xxhash

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.link.frames import PAYLOAD_BYTES, frames_of
from proxy_worker.repository.store import Buffer, Pace

_LOOK_AGAIN_S: Final = 0.05


class Recipient(Protocol):
    """Where such objects go."""

    location: str
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
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent, or dropped
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
        with self._spooling():
            self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def end(self) -> None:
        """See `StoreWriter`: sends it, beside others."""
        if self._sending is None:
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
            self._file.close()

    def frames(self) -> Iterator[bytes]:
        """All of it, at the store's pace; fewer when it is given up, which the other end takes for broken off."""
        for offset in range(0, self.size_bytes, PAYLOAD_BYTES):
            piece = os.pread(self._file.fileno(), PAYLOAD_BYTES, offset)
            if not self._await_leave(len(piece)):
                return
            yield from frames_of([piece])

    def _await_leave(self, count: int) -> bool:
        """Wait until so many bytes may be sent; False when it was given up."""
        pace = self._store.pace
        while pace is not None and not pace.ready():
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
        with self._file:
            try:
                self._outcome = self._store.send(self)
            except ProxyfleetError as error:
                self._outcome = error
