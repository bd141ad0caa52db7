"""Changed areas as tasks carry them: nothing that changed is left out, and there are never too many."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.subjects import Extent
from scheduler.vcenters.areas import GRANULARITY_BYTES, MOST_AREAS, bounded

SIZE = 1 << 30


@given(
    areas=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 1 << 22)), max_size=60),
    most=st.integers(1, 20),
)
def test_every_changed_byte_is_within_aligned_areas_that_are_few_enough(
    areas: list[tuple[int, int]], most: int
) -> None:
    given_areas = [Extent(offset=start, length=min(length, SIZE - start)) for start, length in areas]
    found = bounded(given_areas, SIZE, most=most)
    assert len(found) <= most
    assert all(area.offset % GRANULARITY_BYTES == 0 for area in found)
    assert all(one.offset + one.length < other.offset for one, other in pairwise(found))
    for area in given_areas:
        assert any(
            one.offset <= area.offset and area.offset + area.length <= one.offset + one.length for one in found
        )


def test_one_percent_in_clusters_of_a_mebibyte_is_read_and_nothing_else() -> None:
    mib, size = 1 << 20, 20 << 30
    clusters = [Extent(offset=at * 100 * mib, length=mib) for at in range(size // mib // 100)]
    assert bounded(clusters, size) == tuple(clusters)


def test_where_there_are_too_many_the_smallest_gaps_are_read_too() -> None:
    grain = GRANULARITY_BYTES
    starts = [0, 2, 10, 12, 30]
    found = bounded([Extent(offset=at * grain, length=1) for at in starts], SIZE, most=3)
    assert [(area.offset // grain, area.length // grain) for area in found] == [(0, 3), (10, 3), (30, 1)]


def test_a_task_with_the_most_areas_stays_small() -> None:
    scattered = [Extent(offset=at * 2 * GRANULARITY_BYTES, length=1) for at in range(10 * MOST_AREAS)]
    found = bounded(scattered, 1 << 40)
    assert len(found) == MOST_AREAS
    assert sum(len(area.model_dump_json()) for area in found) < 128 << 10


def test_the_last_area_ends_with_the_disk() -> None:
    assert bounded([Extent(offset=5, length=1)], 700) == (Extent(offset=0, length=700),)
