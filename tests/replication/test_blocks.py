"""What there is to look at, and the sum that tells whether two ends have the same disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.subjects import Extent
from proxy_worker.replication.blocks import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    PIECE_BLOCKS,
    STRETCH_BLOCKS,
    ZERO,
    block_count,
    moved_root,
    root_of,
    share,
    stretches,
)

SIZES = st.integers(0, 5000 * BLOCK_BYTES)
DIGESTS = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)


@st.composite
def areas_of_a_disk(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    size = draw(SIZES.filter(bool))
    starts = draw(st.lists(st.integers(0, size - 1), max_size=8))
    lengths = st.integers(1, 700 * BLOCK_BYTES)
    return size, [Extent(offset=at, length=min(draw(lengths), size - at)) for at in sorted(starts)]


@given(SIZES)
def test_without_areas_every_block_is_looked_at_once_and_in_order(size: int) -> None:
    seen = [
        block
        for stretch in stretches(size, None)
        for piece in stretch.pieces
        for block in range(piece.first, piece.first + piece.count)
    ]

    assert seen == list(range(block_count(size)))


@given(areas_of_a_disk())
def test_with_areas_exactly_the_blocks_that_they_touch_are_looked_at(disk: tuple[int, list[Extent]]) -> None:
    size, areas = disk
    touched = {
        block
        for area in areas
        for block in range(area.offset // BLOCK_BYTES, (area.offset + area.length - 1) // BLOCK_BYTES + 1)
    }

    seen = []
    for stretch in stretches(size, areas):
        assert 0 < stretch.count <= STRETCH_BLOCKS
        for piece in stretch.pieces:
            assert 0 < piece.count <= PIECE_BLOCKS
            assert stretch.first <= piece.first
            assert piece.first + piece.count <= stretch.first + stretch.count
            seen += range(piece.first, piece.first + piece.count)

    assert seen == sorted(touched)


@given(st.lists(DIGESTS, max_size=40), st.lists(st.tuples(st.integers(0, 39), DIGESTS)))
def test_a_root_that_is_kept_up_to_date_is_that_of_all_digests(
    before: list[bytes], changes: list[tuple[int, bytes]]
) -> None:
    digests, root = list(before), root_of(b"".join(before))

    for index, digest in changes:
        if index < len(digests):
            root = moved_root(root, share(index, digest) - share(index, digests[index]))
            digests[index] = digest

    assert root == root_of(b"".join(digests))


@given(st.lists(DIGESTS, min_size=2, max_size=20, unique=True))
def test_blocks_that_changed_places_make_another_root(digests: list[bytes]) -> None:
    assert root_of(b"".join(digests)) != root_of(b"".join([*digests[1:], digests[0]])) or set(digests) == {ZERO}
