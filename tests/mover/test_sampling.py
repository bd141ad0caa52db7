"""Some of the blocks that changed areas call unchanged are read again: of vSphere's, 0.1% and at least 64."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.mover.sampling import AT_LEAST, SHARE, TOLD_AT_MOST, TOLD_SHARE, draw

BLOCKS = st.integers(0, 200_000)


@st.composite
def ranges(draw_from: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    """Ascending, separate ranges of blocks, and how many blocks the disk has."""
    blocks = draw_from(BLOCKS)
    edges = sorted(draw_from(st.sets(st.integers(0, blocks), max_size=20)))
    return list(zip(edges[::2], edges[1::2], strict=False)), blocks


@given(ranges(), st.booleans())
def test_the_sample_is_of_the_stated_size_and_outside_the_areas(
    case: tuple[list[tuple[int, int]], int], tracked: bool
) -> None:
    changed, blocks = case
    named = sum(end - first for first, end in changed)

    sample = draw(changed, blocks, tracked=tracked)

    stated = (
        max(AT_LEAST, math.ceil((blocks - named) * SHARE))
        if tracked
        else min(TOLD_AT_MOST, int(named * TOLD_SHARE))
    )
    assert len(sample) == min(blocks - named, stated)
    assert sample == sorted(set(sample))
    assert all(0 <= block < blocks for block in sample)
    assert not any(first <= block < end for block in sample for first, end in changed)


def test_every_unchanged_block_may_be_drawn() -> None:
    seen = {block for _ in range(400) for block in draw([(10, 20), (90, 100)], 300, tracked=True)}

    assert seen == {*range(10), *range(20, 90), *range(100, 300)}
