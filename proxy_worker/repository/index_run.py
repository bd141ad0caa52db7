"""Runs: sorted, immutable, memory-mapped files of index records, the pieces that the local index is made of.

A run is a cache: it is made from fragments, never believed over them, and losing it costs time. Layout: header,
fan-out table on the first bits of the id, records, ids of the fragments it covers, packs, data keys, checksum (the
XXH3-128 of all from the records on, and then of what is before them), end mark.

Memory-mapped pages belong to the file, so that a process's own memory doesn't grow with the repository.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import blake3
import msgspec
import xxhash

from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.fragments import PACK_FIELD, RECORD, FragmentPack
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import pack_name

_MAGIC: Final = b"PFRUN\x00\x00\x03"
_CHECKSUM_BYTES: Final = 16
_HEADER: Final = struct.Struct("<8sIIQQQQ")
"""Magic, bits of the fan-out, zero, records, fragments, packs, bytes of data keys."""
_PACK: Final = struct.Struct("<16s16sQQII")
"""Pack id, group digest, size, where its data keys begin and how long they are, number of its fragment."""
_FAN: Final = struct.Struct("<II")
_PACK_NUMBER: Final = struct.Struct("<I")
_PREFIXES: Final = 1 << 16
_SMALL: Final = 1 << 12
_FAN_BITS: Final = (8, 16)
"""For fewer records than that, and for more."""
_PARTITION_RECORDS: Final = 50_000
_PACKS_REMEMBERED: Final = 4096
_LEFT_OUT: Final = 0xFFFF_FFFF
FRAGMENT_ID_BYTES: Final = 16
_data_keys = msgspec.msgpack.Decoder(tuple[SealedDataKey, ...])


class PackEntry(NamedTuple):
    """A pack, as the index knows it."""

    pack_id: bytes
    name: str
    group: bytes
    size_bytes: int
    data_keys: tuple[SealedDataKey, ...]


class Location(NamedTuple):
    """One copy of a block, segment or map."""

    pack: PackEntry
    offset: int
    stored_length: int
    nonce: int
    plain_length: int
    key_index: int
    codec: int
    kind: int
    place: int
    block_count: int


@dataclass(frozen=True, slots=True)
class RunSource:
    """Something that a run can be made of: records with their packs."""

    fragment_ids: Sequence[bytes]
    packs: Callable[[], Iterable[tuple[bytes, bytes, int, bytes, bytes]]]
    """Id, group digest, size, encoded data keys, fragment id; asked for more than once."""
    pack_count: int
    records: bytes | IndexRun
    numbers: array[int] | None = None
    """Of a run that something is left out of: for each of its packs the number here, or `_LEFT_OUT`."""


def group_digest(group: str) -> bytes:
    """16 bytes that stand for a trust group."""
    return blake3.blake3(group.encode()).digest(16)


def fragment_source(fragment_id: bytes, packs: Sequence[FragmentPack], records: bytes) -> RunSource:
    """A fragment as a source."""
    encoded = [
        (
            pack.pack_id,
            group_digest(pack.group),
            pack.size_bytes,
            msgspec.msgpack.encode(pack.data_keys),
            fragment_id,
        )
        for pack in packs
    ]
    return RunSource([fragment_id], lambda: encoded, len(encoded), records)


class IndexRun:
    """An open run. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.record_count: int
        self.pack_count: int
        if len(self._map) < _HEADER.size:
            raise ValueError(f"{path} is not a whole run")
        magic, bits, _, self.record_count, fragments, self.pack_count, key_bytes = _HEADER.unpack_from(self._map)
        if magic != _MAGIC or bits not in _FAN_BITS:
            raise ValueError(f"{path} is not a whole run")
        self._fan = _HEADER.size
        self._records = self._fan + 4 * ((1 << bits) + 1)
        self._fragments = self._records + RECORD.size * self.record_count
        self._packs = self._fragments + FRAGMENT_ID_BYTES * fragments
        self._keys = self._packs + _PACK.size * self.pack_count
        self._end = self._keys + key_bytes
        if len(self._map) != self._end + _CHECKSUM_BYTES + len(_MAGIC) or self._map[-len(_MAGIC) :] != _MAGIC:
            raise ValueError(f"{path} is not a whole run")
        self._shift = 16 - bits
        self._entries: dict[int, PackEntry] = {}

    def is_sound(self) -> bool:
        """Whether it still is as it was written. Reads it all: for those who delete by what it says."""
        with memoryview(self._map) as content:
            checksum = xxhash.xxh3_128(content[self._records : self._end])
            checksum.update(content[: self._records])
            return checksum.digest() == content[self._end : self._end + _CHECKSUM_BYTES]

    def find(self, block_id: bytes) -> list[tuple[int, Location]]:
        """Every copy of an id, each with its pack's number in this run."""
        found = []
        for record in self.copies(block_id):
            _, pack, *fields, _ = RECORD.unpack(record)
            found.append((pack, Location._make((self.pack(pack), *fields))))
        return found

    def copies(self, block_id: bytes) -> list[bytes]:
        """The records of an id as they are; much cheaper than `find`."""
        found = []
        at = self._records + RECORD.size * self._first(block_id)
        while at < self._fragments:
            record = self._map[at : at + RECORD.size]
            if record[:ID_BYTES] != block_id:
                break
            found.append(record)
            at += RECORD.size
        return found

    def pack_numbers(self, block_id: bytes) -> list[int]:
        """The numbers of the packs that hold an id; cheaper than `find`."""
        first = self._first(block_id)
        found: list[int] = []
        while first < self.record_count:
            at = self._records + RECORD.size * first
            if self._map[at : at + ID_BYTES] != block_id:
                break
            found.append(_PACK_NUMBER.unpack_from(self._map, at + ID_BYTES)[0])
            first += 1
        return found

    def pack(self, number: int) -> PackEntry:
        """A pack by its number."""
        if entry := self._entries.get(number):
            return entry
        pack_id, group, size_bytes, begin, length, _ = self._described(number)
        keys = _data_keys.decode(self._map[self._keys + begin : self._keys + begin + length])
        entry = PackEntry(pack_id, pack_name(pack_id), group, size_bytes, keys)
        if len(self._entries) >= _PACKS_REMEMBERED:
            self._entries.clear()
        self._entries[number] = entry
        return entry

    def pack_sizes(self) -> Iterator[tuple[bytes, int]]:
        """The id and size of each pack, by its number; cheaper than `pack`."""
        for number in range(self.pack_count):
            pack_id, _, size_bytes, *_ = self._described(number)
            yield pack_id, size_bytes

    def fragment_of(self, number: int) -> bytes:
        """The id of the fragment that describes a pack, by the pack's number."""
        return self._fragment(self._described(number)[-1])

    def fragment_ids(self) -> Iterator[bytes]:
        """The fragments it covers."""
        for at in range(self._fragments, self._packs, FRAGMENT_ID_BYTES):
            yield self._map[at : at + FRAGMENT_ID_BYTES]

    def records(self, low: int, high: int) -> list[bytes]:
        """Records by number."""
        return _split(self.joined_records(low, high))

    def joined_records(self, low: int, high: int) -> bytes:
        """The same, one after the other."""
        begin = self._records + RECORD.size * low
        return self._map[begin : begin + RECORD.size * (high - low)]

    def lower_bound(self, prefix: int) -> int:
        """The number of the first record whose id's first 16 bits are at least `prefix` (0 to 65536)."""
        if prefix >= _PREFIXES:
            return self.record_count
        return self._first(prefix.to_bytes(2, "big") + bytes(ID_BYTES - 2))

    def source(self) -> RunSource:
        """This run as something to merge."""
        return RunSource(
            list(self.fragment_ids()), lambda: map(self._raw_pack, range(self.pack_count)), self.pack_count, self
        )

    def source_without(self, gone: Set[bytes]) -> RunSource:
        """The same without what fragments say that are `gone`."""
        left = {number for number, fragment in enumerate(self.fragment_ids()) if fragment in gone}
        kept = [number for number in range(self.pack_count) if self._described(number)[-1] not in left]
        numbers = array("I", [_LEFT_OUT]) * self.pack_count
        for place, number in enumerate(kept):
            numbers[number] = place
        fragment_ids = [fragment for fragment in self.fragment_ids() if fragment not in gone]
        return RunSource(fragment_ids, lambda: map(self._raw_pack, kept), len(kept), self, numbers)

    def _raw_pack(self, number: int) -> tuple[bytes, bytes, int, bytes, bytes]:
        pack_id, group, size_bytes, begin, length, fragment = self._described(number)
        keys = self._map[self._keys + begin : self._keys + begin + length]
        return pack_id, group, size_bytes, keys, self._fragment(fragment)

    def _described(self, number: int) -> tuple[bytes, bytes, int, int, int, int]:
        described: tuple[bytes, bytes, int, int, int, int] = _PACK.unpack_from(
            self._map, self._packs + _PACK.size * number
        )
        return described

    def _fragment(self, number: int) -> bytes:
        at = self._fragments + FRAGMENT_ID_BYTES * number
        return self._map[at : at + FRAGMENT_ID_BYTES]

    def _first(self, block_id: bytes) -> int:
        """The number of the first record that isn't below an id."""
        bucket = ((block_id[0] << 8) | block_id[1]) >> self._shift
        bounds: tuple[int, int] = _FAN.unpack_from(self._map, self._fan + 4 * bucket)
        low, high = bounds
        while low < high:
            middle = (low + high) >> 1
            at = self._records + RECORD.size * middle
            if self._map[at : at + ID_BYTES] < block_id:
                low = middle + 1
            else:
                high = middle
        return low


def write_run(path: Path, sources: Sequence[RunSource]) -> None:
    """Merge sources into one durable run, in memory that doesn't depend on how many records there are."""
    most = sum(_count(source.records) for source in sources)
    total = 0
    fragments = sorted(fragment for source in sources for fragment in source.fragment_ids)
    bits = _FAN_BITS[most >= _SMALL]
    fan = array("I", bytes(4 * ((1 << bits) + 1)))
    checksum = xxhash.xxh3_128()
    with path.open("wb") as file:

        def put(piece: bytes) -> None:
            checksum.update(piece)
            file.write(piece)

        file.seek(_HEADER.size + 4 * len(fan))
        for records in _sorted_partitions(sources, most):
            total += len(records)
            for record in records:
                fan[(((record[0] << 8) | record[1]) >> (16 - bits)) + 1] += 1
            put(b"".join(records))
        fan = array("I", accumulate(fan))
        put(b"".join(fragments))
        packs = key_bytes = 0
        for source in sources:
            for pack_id, group, size_bytes, encoded, fragment in source.packs():
                number = bisect_left(fragments, fragment)
                put(_PACK.pack(pack_id, group, size_bytes, key_bytes, len(encoded), number))
                key_bytes += len(encoded)
                packs += 1
        for source in sources:
            for *_, encoded, _ in source.packs():
                put(encoded)
        head = _HEADER.pack(_MAGIC, bits, 0, total, len(fragments), packs, key_bytes) + fan.tobytes()
        checksum.update(head)
        file.write(checksum.digest() + _MAGIC)
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _sorted_partitions(sources: Sequence[RunSource], total: int) -> Iterator[list[bytes]]:
    """All records in order, some ten thousand at a time, with pack numbers of the merged run."""
    partitions = 1
    while partitions < _PREFIXES and total // partitions > _PARTITION_RECORDS:
        partitions *= 2
    step = _PREFIXES // partitions
    small = _renumbered_fragments(sources)
    small.sort()
    position = 0
    for low in range(0, _PREFIXES, step):
        merged: list[bytes] = []
        base = 0
        for source in sources:
            if isinstance(source.records, IndexRun):
                run = source.records
                records = run.records(run.lower_bound(low), run.lower_bound(low + step))
                merged += _renumbered(records, base, source.numbers)
            base += source.pack_count
        end = position
        limit = (low + step).to_bytes(3, "big")
        while end < len(small) and b"\0" + small[end][:2] < limit:
            end += 1
        merged += small[position:end]
        position = end
        merged.sort()
        yield merged


def _renumbered_fragments(sources: Sequence[RunSource]) -> list[bytes]:
    records: list[bytes] = []
    base = 0
    for source in sources:
        if isinstance(source.records, bytes):
            records += _renumbered(_split(source.records), base)
        base += source.pack_count
    return records


def _renumbered(records: list[bytes], base: int, numbers: array[int] | None = None) -> list[bytes]:
    if not base and numbers is None:
        return records
    head, tail = PACK_FIELD.start, PACK_FIELD.stop
    pack, unpack = _PACK_NUMBER.pack, _PACK_NUMBER.unpack_from
    placed = ((record, unpack(record, head)[0]) for record in records)
    if numbers is not None:
        placed = ((record, numbers[number]) for record, number in placed if numbers[number] != _LEFT_OUT)
    return [record[:head] + pack(number + base) + record[tail:] for record, number in placed]


def _split(block: bytes) -> list[bytes]:
    return [block[at : at + RECORD.size] for at in range(0, len(block), RECORD.size)]


def _count(records: bytes | IndexRun) -> int:
    return records.record_count if isinstance(records, IndexRun) else len(records) // RECORD.size
