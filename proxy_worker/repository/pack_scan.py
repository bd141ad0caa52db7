"""Reading whole packs, several at once: what check and scrub have in common."""

from __future__ import annotations

import os
import re
import threading
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
    result = PackResult(pack_id)
    try:
        footer = read_footer(store, pack_id)
        result.read_bytes = footer.size_bytes
        try:
            test = prepare(pack_id, footer)
        except (PackLayoutError, DamageError) as error:
            result.problem = _reason(error)
            test = None
        for number, offset, checksum, stored in _chunks(store, pack_id, footer, buffer):
            problem = "has a wrong checksum" if xxhash.xxh3_128_digest(stored) != checksum else None
            if problem is None and test is not None:
                problem = test(number, stored)
            if problem:
                result.bad_chunks[offset] = problem
    except ObjectNotFoundError:
        return None
    except PackLayoutError as error:
        result.problem = str(error)
    return result


def scan_packs(
    store: Store, prepare: Callable[[bytes, Footer], ChunkTest | None], done: Callable[[PackResult], None]
) -> None:
    """Scan all packs in as many threads as there are cores; `done` is called by one thread at a time."""
    ids, lock, stopped = pack_ids(store), threading.Lock(), threading.Event()

    def work() -> None:
        buffer = bytearray(_WINDOW_BYTES)
        try:
            while not stopped.is_set():
                with lock:
                    pack_id = next(ids, None)
                if pack_id is None:
                    return
                result = scan_pack(store, pack_id, prepare, buffer)
                if result is not None:
                    with lock:
                        done(result)
        except BaseException:
            stopped.set()
            raise

    count = _thread_count()
    with ThreadPoolExecutor(count, thread_name_prefix="scan") as threads:
        for future in [threads.submit(work) for _ in range(count)]:
            future.result()


def _chunks(
    store: Store, pack_id: bytes, footer: Footer, buffer: bytearray
) -> Iterator[tuple[int, int, bytes, memoryview]]:
    """Number, offset, checksum and stored bytes of each chunk, read in large pieces."""
    name = pack_name(pack_id)
    window, begin, got = memoryview(buffer), 0, 0
    for number, (offset, length, checksum) in enumerate(footer):
        if offset + length > begin + got:
            if length > len(window):
                window = memoryview(bytearray(length))
            begin = offset
            with unreadable_as_damage():
                got = store.read_into(name, begin, window[: min(len(window), footer.table_offset - begin)])
            if length > got:
                raise PackLayoutError("it is cut short")
        yield number, offset, checksum, window[offset - begin : offset - begin + length]


def _reason(error: PackLayoutError | DamageError) -> str:
    return f"its table can't be used: {error.why}" if isinstance(error, DamageError) else str(error)


def _thread_count() -> int:
    return max(2, min(_MOST_THREADS, len(os.sched_getaffinity(0))))
