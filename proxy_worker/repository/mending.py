"""Packs as their parity says they were: a store that mends what is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import xxhash

from proxy_worker.repository.pack_layout import PackLayoutError
from proxy_worker.repository.pack_scan import pack_id_of
from proxy_worker.repository.parity import ShareCode, UnmendableError
from proxy_worker.repository.parity_object import PackParity, load_parity
from proxy_worker.repository.store import (
    Buffer,
    ObjectNotFoundError,
    ObjectUnreadableError,
    Store,
    StoreWriter,
)
from proxy_worker.repository.store.tally import RequestTally

_REMEMBERED: Final = 4

Key = TypeVar("Key")
Value = TypeVar("Value")


class MendedStore:
    """Passes everything on, but what is read of packs comes mended, as far as their parity reaches.

    What it doesn't reach comes as it is. Slow: for what can't be read otherwise. Implements `Store`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.location = store.location
        self.requests: RequestTally | None = store.requests
        self._parities: OrderedDict[str, PackParity | None] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        parity = self._parity_of(name)
        if parity is None:
            return self._store.get(name, offset, length)
        end = parity.pack_bytes if length is None else min(parity.pack_bytes, offset + length)
        step = parity.parity.group_bytes
        pieces = []
        for group in range(offset // step, -(-end // step) if end > offset else 0):
            content, begin = self._group(name, parity, group), group * step
            pieces.append(content[max(0, offset - begin) : end - begin])
        return b"".join(pieces)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See `Store`."""
        content = self.get(name, offset, len(view))
        view[: len(content)] = content
        return len(content)

    def size(self, name: str) -> int:
        """See `Store`."""
        parity = self._parity_of(name)
        return self._store.size(name) if parity is None else parity.pack_bytes

    def prepare(self) -> None:
        """See `Store`."""
        self._store.prepare()

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """See `Store`."""
        return self._store.put_if_absent(name, chunks)

    def create(self, name: str) -> StoreWriter:
        """See `Store`."""
        return self._store.create(name)

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`."""
        self._store.replace(name, chunks)

    def exists(self, name: str) -> bool:
        """See `Store`."""
        return self._store.exists(name)

    def list(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        """See `Store`."""
        self._store.delete(name)

    def leftovers(self) -> Iterator[str]:
        """See `Store`."""
        return self._store.leftovers()

    def remove_leftovers(self, *, before: float) -> int:
        """See `Store`."""
        return self._store.remove_leftovers(before=before)

    def _parity_of(self, name: str) -> PackParity | None:
        pack_id = pack_id_of(name)
        if pack_id is None:
            return None

        def load() -> PackParity | None:
            with suppress(ObjectNotFoundError, ObjectUnreadableError, PackLayoutError):
                return load_parity(self._store, pack_id)
            return None

        return self._remembered(self._parities, name, load)

    def _group(self, name: str, parity: PackParity, group: int) -> bytes:
        return self._remembered(self._groups, (name, group), lambda: mended_group(self._store, name, parity, group))

    def _remembered(self, known: OrderedDict[Key, Value], key: Key, load: Callable[[], Value]) -> Value:
        """The last few of a kind: neighbours are asked for one after the other."""
        with self._lock:
            if key in known:
                return known[key]
        value = load()
        with self._lock:
            known[key] = value
            while len(known) > _REMEMBERED:
                known.popitem(last=False)
        return value


def mended_group(store: Store, name: str, pack: PackParity, group: int) -> bytes:
    """A group of a pack, mended; as it is, with zeros for what can't be read, where too much is damaged."""
    parity = pack.parity
    length = parity.group_length(pack.pack_bytes, group)
    share = parity.share_length(length)
    sums = pack.sums_of(group)
    data = _read(store, name, _Run(group * parity.group_bytes, length, parity.data_shares, share))
    if not _is_whole(data, sums):
        offset = pack.shares_at(group)
        count = parity.parity_shares
        others = _read(store, pack.name, _Run(offset, count * share, count, share))
        shares = [
            one if _is_whole([one], [total]) else None for one, total in zip(data + others, sums, strict=True)
        ]
        with suppress(UnmendableError):
            return ShareCode(parity).mended(length, shares)
    return b"".join(data)[:length]


class _Run(NamedTuple):
    """Shares that lie one after the other in an object."""

    offset: int
    length: int
    """Of all together; zeros follow."""
    shares: int
    share_bytes: int


def _read(store: Store, name: str, run: _Run) -> list[bytes]:
    """The shares, zeros in the place of what can't be read or isn't there."""
    shares = []
    for at in range(0, run.shares * run.share_bytes, run.share_bytes):
        piece = bytearray(run.share_bytes)
        if at < run.length:
            with suppress(ObjectUnreadableError, ObjectNotFoundError):
                store.read_into(name, run.offset + at, memoryview(piece)[: run.length - at])
        shares.append(bytes(piece))
    return shares


def _is_whole(shares: Sequence[bytes], sums: Sequence[bytes]) -> bool:
    return all(xxhash.xxh3_128_digest(share) == total for share, total in zip(shares, sums, strict=False))
