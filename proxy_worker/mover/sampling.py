"""Reading again some of the blocks that changed areas call unchanged: areas that missed a change lose data."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from proxy_worker.mover.control import Control, Verdict, stopped
from proxy_worker.mover.plan import ID_BYTES, ZERO_ID, BlockRange, Geometry, ParentSegments
from proxy_worker.repository.writer import DiskWriter
from proxy_worker.transport.source import DiskSource

SHARE: Final = 0.001
"""Of the blocks that changed block tracking calls unchanged, this many are read again."""
AT_LEAST: Final = 64
"""Blocks; or all, where fewer are unchanged."""
TOLD_SHARE: Final = 0.04
"""Where somebody else tells the areas: as many blocks as this share of those that changed, so that who tells them
well pays little."""
TOLD_AT_MOST: Final = 32
_AT_ONCE: Final = 4096
"""Blocks of one batch, so that memory doesn't grow with the disk."""


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """What reading again has shown."""

    read_bytes: int
    changed_at: int | None = None
    """Offset of a block that has changed although no area names it."""


class Comparing(Protocol):
    """Compares single blocks of a source with what they should be."""

    parallel_reads: int

    def compare(self, block: int) -> tuple[bool, int]:
        """Whether the source has what is expected, and how many bytes were read for that."""


def check_sample(
    reader: Comparing, changed: Sequence[BlockRange], geometry: Geometry, control: Control, *, tracked: bool
) -> SampleOutcome:
    """Compare a random sample of the blocks outside `changed`; `tracked` by vSphere, or told.

    Raises `SourceError`, and `CancelledError` when the control says stop.
    """
    sample = draw(changed, -(-geometry.size_bytes // geometry.block_size), tracked=tracked)
    read_bytes = 0
    with ThreadPoolExecutor(reader.parallel_reads, thread_name_prefix="sample") as threads:
        for start in range(0, len(sample), _AT_ONCE):
            if control.verdict() is Verdict.STOP:
                raise stopped()
            batch = sample[start : start + _AT_ONCE]
            compared = list(threads.map(reader.compare, batch))
            read_bytes += sum(length for _, length in compared)
            for block, (unchanged, _) in zip(batch, compared, strict=True):
                if not unchanged:
                    return SampleOutcome(read_bytes, block * geometry.block_size)
    return SampleOutcome(read_bytes)


def draw(changed: Sequence[BlockRange], blocks: int, *, tracked: bool) -> list[int]:
    """Which of a disk's `blocks` outside the ascending ranges `changed` are read again, ascending, each once."""
    edges = [0, *(edge for pair in changed for edge in pair), blocks]
    gaps = [(edges[at], edges[at + 1]) for at in range(0, len(edges), 2) if edges[at] < edges[at + 1]]
    unchanged = sum(end - first for first, end in gaps)
    told = min(TOLD_AT_MOST, int((blocks - unchanged) * TOLD_SHARE))
    size = min(unchanged, max(AT_LEAST, math.ceil(unchanged * SHARE)) if tracked else told)
    places = sorted(random.sample(range(unchanged), size))
    drawn, before = [], 0
    place = iter(places)
    wanted = next(place, None)
    for first, end in gaps:
        while wanted is not None and wanted < before + end - first:
            drawn.append(first + wanted - before)
            wanted = next(place, None)
        before += end - first
    return drawn


class BlockComparison:
    """Compares single blocks of a source with the parent's; each thread has a buffer and remembers one segment."""

    def __init__(self, source: DiskSource, writer: DiskWriter, parent: ParentSegments, geometry: Geometry) -> None:
        self.parallel_reads = source.parallel_reads
        self._source = source
        self._writer = writer
        self._parent = parent
        self._geometry = geometry
        self._threads = threading.local()
        self._loading = threading.Lock()

    def compare(self, block: int) -> tuple[bool, int]:
        """Whether the source has the block that the parent has, and how many bytes were read for it.

        None, where both know it to be zeros: of a large thin disk that is nearly all of the sample.
        """
        geometry = self._geometry
        index, place = divmod(block, geometry.blocks_per_segment)
        ids = self._segment(index)
        if ids is None:
            return True, 0  # damaged in the parent: nothing to compare with, and read whole anyway
        expected = ids[place * ID_BYTES : (place + 1) * ID_BYTES] or ZERO_ID
        offset, length = block * geometry.block_size, geometry.span(block, 1)
        if expected == ZERO_ID and next(iter(self._source.allocated(offset, length)), None) is None:
            return True, 0
        view = self._buffer()[:length]
        self._source.read_into(offset, view)
        found = self._writer.identify(view) if bytes(view).rstrip(b"\0") else ZERO_ID
        return found == expected, length

    def _segment(self, index: int) -> bytes | None:
        held: tuple[int, bytes | None] | None = getattr(self._threads, "segment", None)
        if held is None or held[0] != index:
            with self._loading:
                held = self._threads.segment = (index, self._parent.ids(index))
        return held[1]

    def _buffer(self) -> memoryview:
        held: memoryview | None = getattr(self._threads, "buffer", None)
        if held is None:
            held = self._threads.buffer = memoryview(bytearray(self._geometry.block_size))
        return held
