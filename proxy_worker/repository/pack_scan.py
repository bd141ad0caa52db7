"""Reading whole packs, several at once: what check and scrub have in common."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import xxhash

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.pack_layout import Footer, PackLayoutError, pack_name
from proxy_worker.repository.packs import read_footer, unreadable_as_damage
from proxy_worker.repository.store import ObjectNotFoundError, Store

_WINDOW_BYTES: Final = 1024 * 1024
_SHARE_BYTES: Final = 8 * _WINDOW_BYTES
"""What a thread takes of a pack at a time."""
_MOST_THREADS: Final = 8
_PACK_NAME: Final = re.compile(r"packs/([0-9a-f]{2})/(\1[0-9a-f]{30})")


class ChunkTest(Protocol):
    """Tests chunk number `number` of the pack at hand; says what is wrong with it, if anything."""

    def __call__(self, number: int, stored: memoryview) -> str | None: ...


@dataclass(slots=True)
class PackResult:
    """What reading a pack came to."""

    pack_id: bytes
    read_bytes: int = 0
    problem: str | None = None
    """Wrong with the pack as a whole: its ends or its table."""
    bad_chunks: dict[int, str] = field(default_factory=dict)
    """By offset."""

    @property
    def summary(self) -> str | None:
        """All that is wrong, in a line."""
        if self.problem:
            return self.problem
        if not self.bad_chunks:
            return None
        first = min(self.bad_chunks)
        more = f", and {len(self.bad_chunks) - 1} more" if len(self.bad_chunks) > 1 else ""
        return f"the chunk at {first} {self.bad_chunks[first]}{more}"


def pack_ids(store: Store) -> Iterator[bytes]:
    """The ids of all packs in a store."""
    for name in store.list("packs/"):
        if pack_id := pack_id_of(name):
            yield pack_id


def pack_id_of(name: str) -> bytes | None:
    """The id of the pack that has this name; None for other objects."""
    match = _PACK_NAME.fullmatch(name)
    return bytes.fromhex(match[2]) if match else None


def scan_pack(
    store: Store, pack_id: bytes, prepare: Callable[[bytes, Footer], ChunkTest | None], buffer: bytearray
) -> PackResult | None:
    """Read a pack from end to end against its checksums, and each chunk against what `prepare` returns.

    `prepare` sees the footer first, and may raise `PackLayoutError` or `DamageError`. None when the pack has been
    deleted meanwhile.
    """
    pack = _OpenPack(store, pack_id, prepare)
    for begin, end in pack.shares():
        pack.scan(begin, end, buffer)
    return pack.outcome()


def scan_packs(
    store: Store, prepare: Callable[[bytes, Footer], ChunkTest | None], done: Callable[[PackResult], None]
) -> None:
    """Scan all packs in as many threads as there are cores; `done` is called by one thread at a time.

    Each thread takes a share of a pack after the other, so that all have work until there is none: there may be
    few packs for that.
    """
    work = _Work(store, prepare, done)
    count = _thread_count()
    with ThreadPoolExecutor(count, thread_name_prefix="scan") as threads:
        for future in [threads.submit(work.run) for _ in range(count)]:
            future.result()


class _OpenPack:
    """A pack whose chunks are being read, perhaps by several threads, each another share."""

    def __init__(self, store: Store, pack_id: bytes, prepare: Callable[[bytes, Footer], ChunkTest | None]) -> None:
        self.unread = 0
        """Shares that aren't read yet; whoever gives them out counts them."""
        self._store = store
        self._result = PackResult(pack_id)
        self._gone = False
        self._test: ChunkTest | None = None
        self._entries: list[tuple[int, int, bytes]] = []
        try:
            footer = read_footer(store, pack_id)
            self._result.read_bytes = footer.size_bytes
            self._entries = list(footer)
            try:
                self._test = prepare(pack_id, footer)
            except (PackLayoutError, DamageError) as error:
                self._result.problem = _reason(error)
        except ObjectNotFoundError:
            self._gone = True
        except PackLayoutError as error:
            self._result.problem = str(error)

    def shares(self) -> list[tuple[int, int]]:
        """The numbers of its chunks, in ranges that are read in one go."""
        found, begin, limit = [], 0, 0
        for number, (offset, length, _) in enumerate(self._entries):
            if offset + length > limit:
                if number:
                    found.append((begin, number))
                begin, limit = number, offset + _SHARE_BYTES
        if self._entries:
            found.append((begin, len(self._entries)))
        return found

    def scan(self, begin: int, end: int, buffer: bytearray) -> None:
        """Read chunks `begin` to `end`, without the last; thread-safe."""
        result, test = self._result, self._test
        try:
            for number, offset, checksum, stored in self._chunks(begin, end, buffer):
                problem = "has a wrong checksum" if xxhash.xxh3_128_digest(stored) != checksum else None
                if problem is None and test is not None:
                    problem = test(number, stored)
                if problem:
                    result.bad_chunks[offset] = problem
        except ObjectNotFoundError:
            self._gone = True
        except PackLayoutError as error:
            result.problem = str(error)

    def outcome(self) -> PackResult | None:
        """What reading all of it came to; None when it has been deleted."""
        return None if self._gone else self._result

    def _chunks(self, begin: int, end: int, buffer: bytearray) -> Iterator[tuple[int, int, bytes, memoryview]]:
        """Number, offset, checksum and stored bytes of each chunk, read in large pieces."""
        name = pack_name(self._result.pack_id)
        last_offset, last_length, _ = self._entries[end - 1]
        window, base, got = memoryview(buffer), 0, 0
        for number in range(begin, end):
            offset, length, checksum = self._entries[number]
            if offset + length > base + got:
                if length > len(window):
                    window = memoryview(bytearray(length))
                base = offset
                with unreadable_as_damage():
                    wanted = min(len(window), last_offset + last_length - base)
                    got = self._store.read_into(name, base, window[:wanted])
                if length > got:
                    raise PackLayoutError("it is cut short")
            yield number, offset, checksum, window[offset - base : offset - base + length]


class _Work:
    """The packs of a store, in shares for threads."""

    def __init__(
        self,
        store: Store,
        prepare: Callable[[bytes, Footer], ChunkTest | None],
        done: Callable[[PackResult], None],
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._done = done
        self._ids = pack_ids(store)
        self._shares: deque[tuple[_OpenPack, int, int]] = deque()
        self._opening = 0
        self._stopped = False
        self._changed = threading.Condition()

    def run(self) -> None:
        """Take part until nothing is left; raises what `done` or the store raised."""
        buffer = bytearray(_WINDOW_BYTES)
        try:
            while (share := self._next_share()) is not None:
                pack, begin, end = share
                pack.scan(begin, end, buffer)
                with self._changed:
                    pack.unread -= 1
                    if not pack.unread:
                        self._finish(pack)
        except BaseException:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            raise

    def _next_share(self) -> tuple[_OpenPack, int, int] | None:
        while True:
            with self._changed:
                while True:
                    if self._stopped:
                        return None
                    if self._shares:
                        return self._shares.popleft()
                    pack_id = next(self._ids, None)
                    if pack_id is not None:
                        self._opening += 1
                        break
                    if not self._opening:
                        return None
                    self._changed.wait()  # somebody opens the last pack, and may have shares of it to give
            pack = _OpenPack(self._store, pack_id, self._prepare)
            shares = pack.shares()
            with self._changed:
                self._opening -= 1
                pack.unread = len(shares)
                self._shares.extend((pack, begin, end) for begin, end in shares)
                if not shares:
                    self._finish(pack)
                self._changed.notify_all()

    def _finish(self, pack: _OpenPack) -> None:
        result = pack.outcome()
        if result is not None:
            self._done(result)


def _reason(error: PackLayoutError | DamageError) -> str:
    return f"its table can't be used: {error.why}" if isinstance(error, DamageError) else str(error)


def _thread_count() -> int:
    return max(2, min(_MOST_THREADS, len(os.sched_getaffinity(0))))
