"""Whether the areas that a source was told can be trusted: some of the blocks that they leave out are read again.

A change that the areas missed once would stay in the replica for good, and both ends would call it equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.control import Control
from proxy_worker.mover.plan import Geometry, block_ranges, clip
from proxy_worker.mover.sampling import SampleOutcome, check_sample
from proxy_worker.replication.blocks import BLOCK_BYTES, STRETCH_BLOCKS, ZERO, ZEROS, block_count, digest_of
from proxy_worker.transport.source import DiskSource


def check_areas(
    source: DiskSource,
    areas: Sequence[Extent],
    expected: Callable[[int], bytes],
    key: bytes,
    control: Control,
    *,
    tracked: bool,
) -> SampleOutcome:
    """Compare a sample of the blocks that no area touches with the digests, made by `key`, `expected` of them.

    Raises what `check_sample` and `expected` raise.
    """
    geometry = Geometry(source.size_bytes, BLOCK_BYTES, STRETCH_BLOCKS)
    reader = _Reader(source, geometry, expected, key)
    touched = clip(block_ranges(areas, BLOCK_BYTES), 0, block_count(source.size_bytes))
    return check_sample(reader, touched, geometry, control, tracked=tracked)


class _Reader:
    def __init__(
        self, source: DiskSource, geometry: Geometry, expected: Callable[[int], bytes], key: bytes
    ) -> None:
        self.parallel_reads = source.parallel_reads
        self._source = source
        self._geometry = geometry
        self._expected = expected
        self._key = key

    def compare(self, block: int) -> tuple[bool, int]:
        """Whether the source has what is expected, and how many bytes were read for that."""
        offset, length = block * BLOCK_BYTES, self._geometry.span(block, 1)
        expected = self._expected(block)
        if expected == ZERO and next(iter(self._source.allocated(offset, length)), None) is None:
            return True, 0
        view = memoryview(bytearray(length))
        self._source.read_into(offset, view)
        found = ZERO if view == ZEROS[:length] else digest_of(self._key, view)
        return found == expected, length
