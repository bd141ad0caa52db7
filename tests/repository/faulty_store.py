"""A store that stops working, as a killed process or a broken disk does."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import Buffer, ObjectUnreadableError, Store, StoreWriter

Reply = TypeVar("Reply")


class StoppedError(StoreError):
    """The store has stopped."""


class FaultyStore:
    """Passes everything on, until operation number `stop_at` (from 0): that one and all later ones raise.

    With `after` the fatal operation takes effect before it raises, like a reply that got lost.
    """

    def __init__(
        self,
        store: Store,
        *,
        stop_at: int | None = None,
        after: bool = False,
        error: type[StoreError] = StoppedError,
        only_writes: bool = False,
    ) -> None:
        self.location = store.location
        self.requests = store.requests
        self.operations = 0
        self.stop_at = stop_at
        self._store = store
        self._after = after
        self._error = error
        self._only_writes = only_writes
        self._lock = threading.Lock()

    def before(self, action: str, *, writes: bool) -> bool:
        """Count an operation; True if it is to take effect and then fail. Raises if it must not take effect."""
        with self._lock:
            if self._only_writes and not writes:
                return False
            number = self.operations
            self.operations += 1
        if self.stop_at is None or number < self.stop_at:
            return False
        if number == self.stop_at and self._after:
            return True
        raise self.failure(action)

    def failure(self, action: str) -> StoreError:
        """What is raised."""
        return self._error(f"can't {action}", why="the store has stopped, as this test wants")

    def prepare(self) -> None:
        self._store.prepare()

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        lost = self.before(f"put {name}", writes=True)
        done = self._store.put_if_absent(name, chunks)
        return self._replied(done, lost=lost)

    def create(self, name: str) -> StoreWriter:
        lost = self.before(f"create {name}", writes=True)
        return FaultyWriter(self, self._replied(self._store.create(name), lost=lost))

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        lost = self.before(f"replace {name}", writes=True)
        self._store.replace(name, chunks)
        self._replied(None, lost=lost)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        lost = self.before(f"get {name}", writes=False)
        return self._replied(self._store.get(name, offset, length), lost=lost)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        lost = self.before(f"read {name}", writes=False)
        return self._replied(self._store.read_into(name, offset, view), lost=lost)

    def size(self, name: str) -> int:
        lost = self.before(f"size {name}", writes=False)
        return self._replied(self._store.size(name), lost=lost)

    def exists(self, name: str) -> bool:
        lost = self.before(f"exists {name}", writes=False)
        return self._replied(self._store.exists(name), lost=lost)

    def list(self, prefix: str) -> Iterator[str]:
        lost = self.before(f"list {prefix}", writes=False)
        return self._replied(self._store.list(prefix), lost=lost)

    def delete(self, name: str) -> None:
        lost = self.before(f"delete {name}", writes=True)
        self._store.delete(name)
        self._replied(None, lost=lost)

    def leftovers(self) -> Iterator[str]:
        return self._store.leftovers()

    def remove_leftovers(self, *, before: float) -> int:
        lost = self.before("remove leftovers", writes=True)
        return self._replied(self._store.remove_leftovers(before=before), lost=lost)

    def _replied(self, reply: Reply, *, lost: bool) -> Reply:
        if lost:
            raise self.failure("hear the reply")
        return reply


class BadSectorStore(FaultyStore):
    """Passes everything on, but reads of some bytes of one object, as a disk with bad sectors does."""

    def __init__(self, store: Store, name: str, bad: range) -> None:
        super().__init__(store)
        self._name = name
        self._bad = bad

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._require_readable(name, offset, self.size(name) - offset if length is None else length)
        return super().get(name, offset, length)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        self._require_readable(name, offset, len(view))
        return super().read_into(name, offset, view)

    def _require_readable(self, name: str, offset: int, length: int) -> None:
        if name == self._name and offset < self._bad.stop and self._bad.start < offset + length:
            raise ObjectUnreadableError(f"can't read {name}", why="Input/output error")


class FaultyWriter:
    """A writer of a faulty store."""

    def __init__(self, store: FaultyStore, writer: StoreWriter) -> None:
        self._store = store
        self._writer = writer

    def write(self, data: Buffer) -> None:
        lost = self._store.before("write", writes=True)
        self._writer.write(data)
        if lost:
            raise self._store.failure("hear the reply")

    def end(self) -> None:
        self._writer.end()

    def finish(self) -> bool:
        lost = self._store.before("finish", writes=True)
        done = self._writer.finish()
        if lost:
            raise self._store.failure("hear the reply")
        return done

    def discard(self) -> None:
        """A process that was killed discards nothing; the file handle goes all the same."""
        if self._store.stop_at is None or self._store.operations <= self._store.stop_at:
            self._writer.discard()
