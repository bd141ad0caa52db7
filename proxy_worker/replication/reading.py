"""A source's disk, read where it may hold something other than zeros."""

from __future__ import annotations

from collections.abc import Sequence

from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.vm_disk import AreaMap
from proxy_worker.replication.blocks import BLOCK_BYTES, ZEROS
from proxy_worker.transport.source import DiskSource


class PieceReader:
    """Reads pieces of a disk. Thread-safe, as its source is."""

    def __init__(self, source: DiskSource, areas_in_use: Sequence[Extent] | None) -> None:
        """`areas_in_use`: all that may hold something, ascending; None when nobody can tell."""
        self._source = source
        self._in_use = AreaMap(areas_in_use)

    def read(self, offset: int, view: memoryview) -> int:
        """Fill `view`; returns how many bytes had to be read, 0 where all is zeros, and nothing was filled.

        Raises SourceError.
        """
        if not self._in_use.everything and not self._in_use.touches(offset, len(view)):
            return 0
        extents = list(self._source.allocated(offset, len(view)))
        read_bytes = sum(extent.length for extent in extents)
        if 0 < read_bytes < len(view):
            for at in range(0, len(view), BLOCK_BYTES):
                part = view[at : at + BLOCK_BYTES]
                part[:] = ZEROS[: len(part)]
        for extent in extents:
            start = extent.offset - offset
            self._source.read_into(extent.offset, view[start : start + extent.length])
        return read_bytes
