"""Changed areas as a task carries them: whole blocks of the repository, and not too many of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from proxy_worker.contract.subjects import Extent

GRANULARITY_BYTES: Final = 256 << 10
"""Smallest common block of repositories: a disk is read in nothing smaller."""
MOST_AREAS: Final = 2048
"""About 100 KB of a signed task. A disk with more gaps than that has the smallest of them read too."""


def bounded(
    areas: Iterable[Extent],
    size_bytes: int,
    *,
    granularity_bytes: int = GRANULARITY_BYTES,
    most: int = MOST_AREAS,
) -> tuple[Extent, ...]:
    """Areas that cover `areas` of a disk of `size_bytes`: aligned, ascending, apart, and at most `most`.

    Where there are too many, those with the smallest gaps between them are joined.
    """
    merged: list[tuple[int, int]] = []
    for area in sorted(areas, key=lambda extent: extent.offset):
        start = area.offset // granularity_bytes * granularity_bytes
        end = min(-(-(area.offset + area.length) // granularity_bytes) * granularity_bytes, size_bytes)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    if len(merged) > most:
        merged = _joined(merged, most)
    return tuple(Extent(offset=start, length=end - start) for start, end in merged)


def _joined(ranges: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """The same ranges with all but the `most - 1` widest gaps closed."""
    gaps = sorted(range(1, len(ranges)), key=lambda at: ranges[at][0] - ranges[at - 1][1], reverse=True)
    kept = sorted(gaps[: most - 1])
    bounds = [0, *kept, len(ranges)]
    return [(ranges[first][0], ranges[last - 1][1]) for first, last in pairwise(bounds)]
