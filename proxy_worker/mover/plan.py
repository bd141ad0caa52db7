"""What to read of a disk: per segment, the blocks that may differ from zeros and from the parent.

Pure but for two questions: which ranges the source has allocated, and the ids of the parent's segments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.subjects import Extent

ID_BYTES = 32
ZERO_ID = bytes(ID_BYTES)
_AHEAD: Final = 4
"""Segments of the parent that are loaded before they are asked for."""

BlockRange = tuple[int, int]
"""First block and the block after the last."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A disk cut into blocks and segments. Sizes in bytes."""

    size_bytes: int
    block_size: int
    blocks_per_segment: int

    @property
    def segment_bytes(self) -> int:
        return self.block_size * self.blocks_per_segment

    @property
    def segments(self) -> int:
        return -(-self.size_bytes // self.segment_bytes)

    def segment_length(self, index: int) -> int:
        """Bytes of the disk in segment `index`."""
        return min(self.segment_bytes, self.size_bytes - index * self.segment_bytes)

    def span(self, first_block: int, blocks: int) -> int:
        """Bytes of the disk in so many blocks: the disk's last block may be shorter."""
        return min(blocks * self.block_size, self.size_bytes - first_block * self.block_size)


@dataclass(slots=True)
class Segment:
    """One segment on its way: its ids are filled in as its blocks are identified."""

    index: int
    first_block: int
    length: int
    """Bytes of the disk."""
    ids: bytearray
    parent_ids: bytes | None = None
    unread_blocks: int = 0
    """Blocks to read that have not been delivered yet; 0 completes the segment."""
    known_id: bytes | None = None
    """Set when the segment needs no reading at all: the parent's id, or the id of zeros."""
    zero_bytes: int = 0
    """Of the bytes that are not read: those in holes."""
    unchanged_bytes: int = 0
    """Of the bytes that are not read: those outside the changed areas."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring blocks of one segment, to be read at once."""

    segment: Segment
    first: int
    """The first block's place in the segment."""
    offset: int
    length: int
    """Bytes of the disk."""


@dataclass(frozen=True, slots=True)
class ParentSegments:
    """The same disk in the parent point."""

    segments: Sequence[bytes]
    load: Callable[[bytes], bytes]
    """The ids that a segment id stands for."""

    damage: list[str] = field(default_factory=list)
    """What went wrong with segments that can't be read, in the repository's words."""
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_AHEAD, "parent"))
    _begun: dict[int, Future[bytes]] = field(default_factory=dict)

    def begin(self, index: int) -> None:
        """Begin to load a segment that will be asked for: over a long line each takes a round trip."""
        if index < len(self.segments) and self.segments[index] != ZERO_ID:
            self._begun[index] = self._threads.submit(self.load, self.segments[index])

    def ids(self, index: int) -> bytes | None:
        """The block ids of segment `index`, empty for a segment of zeros; None past the parent's end.

        None too for a segment that is damaged: a backup must not fail because an earlier one has suffered.
        """
        if index >= len(self.segments):
            return None
        segment_id = self.segments[index]
        begun = self._begun.pop(index, None)
        try:
            if begun is not None:
                return begun.result()
            return b"" if segment_id == ZERO_ID else self.load(segment_id)
        except DamageError as error:
            self.damage.append(str(error))
            return None


def block_ranges(areas: Iterable[Extent], block_size: int) -> list[BlockRange]:
    """The blocks that areas touch, ascending, without overlaps."""
    merged: list[BlockRange] = []
    for area in sorted(areas, key=lambda extent: extent.offset):
        first = area.offset // block_size
        end = -(-(area.offset + area.length) // block_size)
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged


def clip(ranges: Iterable[BlockRange], first: int, end: int) -> list[BlockRange]:
    """The parts of ascending ranges that lie within `first`, `end`."""
    return [(max(first, a), min(end, b)) for a, b in ranges if a < end and b > first]


def intersect(left: Sequence[BlockRange], right: Sequence[BlockRange]) -> list[BlockRange]:
    """The blocks that are in both of two ascending lists."""
    found = []
    i = j = 0
    while i < len(left) and j < len(right):
        first, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first < end:
            found.append((first, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return found


def within(
    allocated: Callable[[int, int], Iterable[Extent]], ranges: Sequence[BlockRange], block_size: int
) -> Callable[[int, int], Iterator[Extent]]:
    """What `allocated` tells, as far as it lies in these blocks."""

    def told(offset: int, length: int) -> Iterator[Extent]:
        first, end = offset // block_size, -(-(offset + length) // block_size)
        for a, b in intersect(clip(ranges, first, end), block_ranges(allocated(offset, length), block_size)):
            yield Extent(offset=a * block_size, length=(b - a) * block_size)

    return told


@dataclass(frozen=True, slots=True)
class _Span:
    """A segment of the disk, and the blocks of it that may differ from the parent."""

    index: int
    first: int
    end: int
    length: int
    touched: list[BlockRange]


class Plan:
    """Yields, in the disk's order, the batches to read and the segments that need no reading."""

    def __init__(
        self,
        geometry: Geometry,
        allocated: Callable[[int, int], Iterable[Extent]],
        *,
        batch_blocks: int,
        parent: ParentSegments | None = None,
        changed: Sequence[BlockRange] | None = None,
        first_segment: int = 0,
    ) -> None:
        """`changed` are the only blocks that may differ from `parent`; None when any block may."""
        if changed is not None and parent is None:
            raise ValueError("changed areas mean nothing without a parent")
        self._geometry = geometry
        self._allocated = allocated
        self._batch_blocks = batch_blocks
        self._parent = parent
        self._changed = changed
        self._first_segment = first_segment

    def __iter__(self) -> Iterator[Batch | Segment]:
        upcoming: deque[_Span] = deque()
        for span in self._spans():
            if self._parent is not None and span.touched:
                self._parent.begin(span.index)
            upcoming.append(span)
            if len(upcoming) > _AHEAD:
                yield from self._segment(upcoming.popleft())
        for span in upcoming:
            yield from self._segment(span)

    def _spans(self) -> Iterator[_Span]:
        position = 0
        for index in range(self._first_segment, self._geometry.segments):
            first = index * self._geometry.blocks_per_segment
            length = self._geometry.segment_length(index)
            end = first + -(-length // self._geometry.block_size)
            if self._changed is None:
                yield _Span(index, first, end, length, [(first, end)])
                continue
            while position < len(self._changed) and self._changed[position][1] <= first:
                position += 1
            upcoming = position
            while upcoming < len(self._changed) and self._changed[upcoming][0] < end:
                upcoming += 1
            yield _Span(index, first, end, length, clip(self._changed[position:upcoming], first, end))

    def _segment(self, span: _Span) -> Iterator[Batch | Segment]:
        geometry, touched = self._geometry, span.touched
        index, first, end, length = span.index, span.first, span.end, span.length
        if self._changed is not None and self._parent is not None and not touched:
            kept = self._parent.segments[index]
            yield Segment(index, first, length, bytearray(), known_id=kept, unchanged_bytes=length)
            return
        parent_ids = self._parent.ids(index) if self._parent else None
        if parent_ids is None:
            touched = [(first, end)]  # nothing is known of the rest either
        to_read = self._holding_data(touched)
        if touched == [(first, end)] and not to_read:
            yield Segment(index, first, length, bytearray(), known_id=ZERO_ID, zero_bytes=length)
            return
        segment = Segment(index, first, length, bytearray(ID_BYTES * (end - first)), parent_ids)
        touched_bytes = sum(geometry.span(a, b - a) for a, b in touched)
        read_bytes = sum(geometry.span(a, b - a) for a, b in to_read)
        segment.zero_bytes = touched_bytes - read_bytes
        segment.unchanged_bytes = length - touched_bytes
        segment.unread_blocks = sum(b - a for a, b in to_read)
        if self._changed is not None and parent_ids:
            segment.ids[:] = parent_ids
            for a, b in touched:
                segment.ids[(a - first) * ID_BYTES : (b - first) * ID_BYTES] = bytes(ID_BYTES * (b - a))
        if not to_read:
            yield segment
        for a, b in to_read:
            for block in range(a, b, self._batch_blocks):
                blocks = min(self._batch_blocks, b - block)
                yield Batch(segment, block - first, block * geometry.block_size, geometry.span(block, blocks))

    def _holding_data(self, touched: list[BlockRange]) -> list[BlockRange]:
        """Of ascending ranges within a segment, the blocks that are not all in holes."""
        if not touched:
            return []
        first, end = touched[0][0], touched[-1][1]
        extents = self._allocated(first * self._geometry.block_size, self._geometry.span(first, end - first))
        return intersect(touched, block_ranges(extents, self._geometry.block_size))
