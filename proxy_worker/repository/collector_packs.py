"""The packs of a repository as a collector counts them: some forty bytes each, in sorted arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, overload

from proxy_worker.repository.index_run import IndexRun
from proxy_worker.repository.pack_layout import PACK_ID_BYTES, pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.store import ObjectNotFoundError, Store

ABSENT: Final = 0xFFFF_FFFF
_PREFIXES: Final = 1 << 16


class SortedIds(Sequence[bytes]):
    """Pack ids in order, 16 bytes each."""

    def __init__(self, ids: Iterable[bytes]) -> None:
        buckets = [bytearray() for _ in range(256)]
        for pack_id in ids:
            buckets[pack_id[0]] += pack_id
        self._joined = bytearray()
        begins = array("Q", bytes(8 * (_PREFIXES + 1)))
        for bucket in buckets:
            pieces = {bytes(bucket[at : at + PACK_ID_BYTES]) for at in range(0, len(bucket), PACK_ID_BYTES)}
            for piece in pieces:
                begins[(piece[0] << 8 | piece[1]) + 1] += PACK_ID_BYTES
            self._joined += b"".join(sorted(pieces))
        self._begins = array("Q", accumulate(begins))
        """By an id's first 16 bits, where such ids begin, in bytes."""

    def __len__(self) -> int:
        return len(self._joined) // PACK_ID_BYTES

    @overload
    def __getitem__(self, number: int) -> bytes: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[bytes]: ...

    def __getitem__(self, number: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return bytes(self._joined[number * PACK_ID_BYTES : (number + 1) * PACK_ID_BYTES])

    def number(self, pack_id: bytes) -> int:
        """The place of an id, or `ABSENT`."""
        first = pack_id[0] << 8 | pack_id[1]
        at, end = self._begins[first], self._begins[first + 1]
        while (at := self._joined.find(pack_id, at, end)) % PACK_ID_BYTES:
            if at < 0:
                return ABSENT
            at += 1  # the end of one id with the beginning of the next
        return at // PACK_ID_BYTES


class Packs:
    """Every pack that is there, by number, and what of it points need. Bytes are those of stored chunks."""

    def __init__(self, store: Store) -> None:
        """List them. Whoever compares with an index refreshes that first: packs are older than their fragments."""
        self.ids = SortedIds(pack_ids(store))
        count = len(self.ids)
        self.size_bytes = array("Q", bytes(8 * count))
        """The whole object's; 0 while it isn't known."""
        self.chunk_bytes = array("Q", bytes(8 * count))
        self.wanted_bytes = array("Q", bytes(8 * count))
        """Copies of what points need, whether others hold it too or not."""
        self.live_bytes = array("Q", bytes(8 * count))
        """Copies that are to stay."""
        self.unreadable: dict[int, str] = {}
        """Packs that no fragment describes and whose own table can't be used, with the reason."""
        self.damaged: set[int] = set()
        """Packs that something can't be had from."""
        self._store = store

    def __len__(self) -> int:
        return len(self.ids)

    def places_in(self, run: IndexRun) -> array[int]:
        """For each pack of a run its number here, or `ABSENT`; takes over the sizes."""
        places = array("I", bytes(4 * run.pack_count))
        for place, (pack_id, size_bytes) in enumerate(run.pack_sizes()):
            places[place] = number = self.ids.number(pack_id)
            if number != ABSENT:
                self.size_bytes[number] = size_bytes
        return places

    def not_in(self, runs: Iterable[IndexRun]) -> Iterator[int]:
        """The numbers of packs that no run describes."""
        known = bytearray(len(self))
        for run in runs:
            for number in self.places_in(run):
                if number != ABSENT:
                    known[number] = 1
        return (number for number, is_known in enumerate(known) if not is_known)

    def measure(self, number: int) -> int:
        """The size of a pack, asked of the store if no fragment says it; 0 when it is gone."""
        if not self.size_bytes[number]:
            try:
                self.size_bytes[number] = self._store.size(pack_name(self.ids[number]))
            except ObjectNotFoundError:
                return 0
        return self.size_bytes[number]

    def dead_bytes(self, number: int) -> int:
        """What of its chunks nobody needs, as far as a fragment describes them."""
        return max(0, self.chunk_bytes[number] - self.live_bytes[number])
