"""A disk of a restore point, read at random: the blocks it is asked for, verified, and the recent ones kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.reader import PointReader

CACHE_BYTES: Final = 64 << 20
"""How much a disk keeps of what was read last."""
_RUN_BLOCKS: Final = 16
"""Neighbouring blocks that are read from the repository at once."""
_SEGMENTS: Final = 64
"""Segments whose ids are kept: each stands for a gigabyte at the usual sizes, and takes 128 KiB."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A range that holds data, or reads as zeros. Bytes."""

    length: int
    zero: bool


class Disk(Protocol):
    """What a server offers. All methods may be called from several threads at once."""

    size_bytes: int
    block_size: int
    """What is best read at once, in bytes."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the range consists of, in order."""
        ...


class ExportedDisk:
    """A disk of a restore point; nobody can write to it. Implements `Disk`."""

    def __init__(self, reader: PointReader, disk_key: str, *, cache_bytes: int = CACHE_BYTES) -> None:
        disk_map = reader.map(disk_key)
        self.size_bytes = disk_map.size_bytes
        self.block_size = disk_map.block_size
        self._reader = reader
        self._segments = disk_map.segments
        self._blocks_per_segment = disk_map.blocks_per_segment
        self._ids = _Recent(_SEGMENTS)
        self._blocks = _Recent(max(1, cache_bytes // disk_map.block_size))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on. Raises `MissingBlockError`, `RepositoryDamageError`, `StoreError`."""
        size = self.block_size
        missing: list[int] = []
        end = offset + len(view)
        for number in range(offset // size, -(-end // size)):
            if self._is_zero(number):
                begin, stop = self._overlap(number, offset, end)
                view[begin - offset : stop - offset] = bytes(stop - begin)
            elif (block := self._blocks.get(number)) is not None:
                self._copy(number, block, offset, view)
            else:
                missing.append(number)
        for run in _runs(missing):
            for number, block in self._load(run):
                self._copy(number, block, offset, view)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What is stored, and what is known to be zeros; neighbours of one kind are one extent."""
        end = offset + length
        at, begin, zero = offset, offset, None
        while at < end:
            number = at // self.block_size
            segment = number // self._blocks_per_segment
            if self._segments[segment] == ZERO_ID:
                is_zero, stop = True, (segment + 1) * self._blocks_per_segment * self.block_size
            else:
                is_zero, stop = self._is_zero(number), (number + 1) * self.block_size
            if zero is not None and is_zero != zero:
                yield Extent(at - begin, zero)
                begin = at
            zero, at = is_zero, min(stop, end)
        if zero is not None:
            yield Extent(end - begin, zero)

    def _load(self, run: range) -> Iterator[tuple[int, bytes]]:
        """Read neighbouring blocks, and keep them."""
        for number, block in self._read(run):
            self._blocks.put(number, block)
            yield number, block

    def _read(self, run: range) -> Iterator[tuple[int, bytes]]:
        begin = run.start * self.block_size
        length = min(run.stop * self.block_size, self.size_bytes) - begin
        if len(run) == 1:
            yield run.start, self._reader.read_block(self._id(run.start), length)
            return
        buffer = memoryview(bytearray(length))
        self._reader.read_blocks_into([self._id(number) for number in run], buffer)
        for number in run:
            at = (number - run.start) * self.block_size
            yield number, bytes(buffer[at : at + self.block_size])

    def _copy(self, number: int, block: bytes, offset: int, view: memoryview) -> None:
        begin, stop = self._overlap(number, offset, offset + len(view))
        at = number * self.block_size
        view[begin - offset : stop - offset] = memoryview(block)[begin - at : stop - at]

    def _overlap(self, number: int, offset: int, end: int) -> tuple[int, int]:
        return max(offset, number * self.block_size), min(end, (number + 1) * self.block_size)

    def _is_zero(self, number: int) -> bool:
        return self._id(number) == ZERO_ID

    def _id(self, number: int) -> bytes:
        segment, place = divmod(number, self._blocks_per_segment)
        segment_id = self._segments[segment]
        if segment_id == ZERO_ID:
            return ZERO_ID
        ids = self._ids.get(segment)
        if ids is None:
            ids = self._reader.segment_ids(segment_id)
            self._ids.put(segment, ids)
        return ids[place * ID_BYTES : (place + 1) * ID_BYTES]


class _Recent:
    """The values that were used last, at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int) -> bytes | None:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
            return self._kept.get(number)

    def put(self, number: int, value: bytes) -> None:
        with self._lock:
            self._kept[number] = value
            self._kept.move_to_end(number)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _runs(numbers: list[int]) -> Iterator[range]:
    """Neighbours among ascending numbers, at most `_RUN_BLOCKS` of them together."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - begin == _RUN_BLOCKS:
            yield range(numbers[begin], numbers[at - 1] + 1)
            begin = at
