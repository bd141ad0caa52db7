"""The plan reads exactly what may differ from zeros and from the parent."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.plan import (
    ID_BYTES,
    ZERO_ID,
    Batch,
    Geometry,
    ParentSegments,
    Plan,
    Segment,
    block_ranges,
    clip,
    intersect,
)

BLOCK, PER_SEGMENT = 16, 4


def geometry(size: int) -> Geometry:
    return Geometry(size, BLOCK, PER_SEGMENT)


@st.composite
def extents_within(draw: st.DrawFn, size: int) -> list[Extent]:
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=12)))
    return [Extent(offset=a, length=b - a) for a, b in zip(edges[::2], edges[1::2], strict=False)]


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Extent], list[Extent]]:
    size = draw(st.integers(0, BLOCK * PER_SEGMENT * 4 + 3))
    return size, draw(extents_within(size)), draw(extents_within(size))


def blocks_of(extents: list[Extent]) -> set[int]:
    return {block for e in extents for block in range(e.offset // BLOCK, -(-(e.offset + e.length) // BLOCK))}


def allocated_in(extents: list[Extent]) -> object:
    def allocated(offset: int, length: int) -> Iterator[Extent]:
        for e in extents:
            start, end = max(offset, e.offset), min(offset + length, e.offset + e.length)
            if start < end:
                yield Extent(offset=start, length=end - start)

    return allocated


def read_blocks(plan: Plan, size: int) -> tuple[set[int], list[Segment]]:
    blocks: set[int] = set()
    segments: dict[int, Segment] = {}
    for piece in plan:
        segment = piece.segment if isinstance(piece, Batch) else piece
        segments[segment.index] = segment
        if isinstance(piece, Batch):
            assert piece.offset + piece.length <= size
            first = piece.offset // BLOCK
            batch = set(range(first, first + -(-piece.length // BLOCK)))
            assert not batch & blocks, "a block is read twice"
            blocks |= batch
    return blocks, [segments[index] for index in sorted(segments)]


@given(disks(), st.integers(1, 3))
def test_without_a_parent_every_block_that_may_hold_data_is_read_once(
    disk: tuple[int, list[Extent], list[Extent]], batch: int
) -> None:
    size, data, _ = disk

    blocks, segments = read_blocks(Plan(geometry(size), allocated_in(data), batch_blocks=batch), size)

    assert blocks == blocks_of(data)
    assert [segment.index for segment in segments] == list(range(geometry(size).segments))
    assert sum(segment.length for segment in segments) == size
    read = sum(geometry(size).span(block, 1) for block in blocks)
    assert sum(segment.zero_bytes for segment in segments) == size - read


@given(disks())
def test_with_changed_areas_only_touched_blocks_are_read_and_the_rest_keep_their_ids(
    disk: tuple[int, list[Extent], list[Extent]],
) -> None:
    size, data, areas = disk
    shape = geometry(size)
    names = [bytes([index + 1]) * ID_BYTES for index in range(shape.segments)]
    loaded = []

    def load(segment_id: bytes) -> bytes:
        loaded.append(segment_id)
        return b"\x77" * ID_BYTES * -(-shape.segment_length(names.index(segment_id)) // BLOCK)

    parent = ParentSegments(names, load)
    plan = Plan(shape, allocated_in(data), batch_blocks=2, parent=parent, changed=block_ranges(areas, BLOCK))

    blocks, segments = read_blocks(plan, size)

    touched = blocks_of(areas)
    assert blocks == touched & blocks_of(data)
    for segment in segments:
        own = range(segment.first_block, segment.first_block + -(-segment.length // BLOCK))
        if touched.isdisjoint(own):
            assert segment.known_id == names[segment.index]
            assert names[segment.index] not in loaded, "an untouched segment is kept without being loaded"
        else:
            listed = segment.ids or bytes(len(own) * ID_BYTES)
            ids = [bytes(listed[i * ID_BYTES : (i + 1) * ID_BYTES]) for i in range(len(own))]
            assert ids == [ZERO_ID if block in touched else b"\x77" * ID_BYTES for block in own]


def test_segments_that_will_be_asked_for_are_loaded_ahead_at_the_same_time() -> None:
    shape = geometry(BLOCK * PER_SEGMENT * 12)
    together = threading.Barrier(4)

    def load(_: bytes) -> bytes:
        together.wait(60)  # broken, if they came one after the other
        return b"\x77" * ID_BYTES * PER_SEGMENT

    parent = ParentSegments([bytes([index + 1]) * ID_BYTES for index in range(12)], load)
    changed = [(index * PER_SEGMENT, index * PER_SEGMENT + 1) for index in range(12)]
    segments = list(Plan(shape, lambda *_: [], batch_blocks=2, parent=parent, changed=changed))

    assert [one.index for one in segments if isinstance(one, Segment)] == list(range(12))


@given(disks())
def test_a_damaged_parent_segment_is_read_whole(disk: tuple[int, list[Extent], list[Extent]]) -> None:
    size, data, areas = disk
    shape = geometry(size)

    def load(segment_id: bytes) -> bytes:
        raise DamageError("pack 7", why="it is cut short")

    parent = ParentSegments([b"\1" * ID_BYTES] * shape.segments, load)
    plan = Plan(shape, allocated_in(data), batch_blocks=2, parent=parent, changed=block_ranges(areas, BLOCK))

    blocks, _ = read_blocks(plan, size)

    suffering = {block // PER_SEGMENT for block in blocks_of(areas)}
    assert blocks == {block for block in blocks_of(data) if block // PER_SEGMENT in suffering}
    assert len(parent.damage) == len(suffering)


@given(disks(), st.integers(0, 4))
def test_a_resumed_plan_starts_at_its_segment(disk: tuple[int, list[Extent], list[Extent]], first: int) -> None:
    size, data, _ = disk
    plan = Plan(geometry(size), allocated_in(data), batch_blocks=2, first_segment=first)

    blocks, segments = read_blocks(plan, size)

    assert [segment.index for segment in segments] == list(range(first, geometry(size).segments))
    assert blocks == {block for block in blocks_of(data) if block >= first * PER_SEGMENT}


@given(disks())
def test_ranges_intersect_as_sets_do(disk: tuple[int, list[Extent], list[Extent]]) -> None:
    _, left, right = disk
    found = intersect(block_ranges(left, BLOCK), block_ranges(right, BLOCK))

    assert {block for a, b in found for block in range(a, b)} == blocks_of(left) & blocks_of(right)
    assert {block for a, b in clip(block_ranges(left, BLOCK), 3, 9) for block in range(a, b)} == {
        block for block in blocks_of(left) if 3 <= block < 9
    }
