"""Buffers that batches are read into, reused for the whole task: their number bounds the pipeline's memory."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

BATCH_BYTES: Final = 512 << 10
"""What is read at once, unless a block is larger: fits the second-level cache, so that hashing finds it warm."""

POOL_BYTES: Final = 8 << 20
"""Of plain data in flight, unless there are many readers. As much again may wait in compressed form; nothing else
grows with a task. A larger pool gains no time and drops out of the processor's caches: 24 MiB cost a third more
processor time in a backup of which nothing had changed."""

FEWEST_BUFFERS: Final = 6
"""So that every stage can hold one and the next one find another."""


class Buffer:
    """Page-aligned memory for one batch."""

    __slots__ = ("_start", "data", "read_s", "view")

    def __init__(self, size_bytes: int) -> None:
        self.data = bytearray(size_bytes + mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        self._start = -address % mmap.PAGESIZE
        self.view = memoryview(self.data)[self._start : self._start + size_bytes]
        self.read_s = 0.0
        """Seconds that filling it took, for the statistics."""

    def begins_with(self, content: bytes, offset: int) -> bool:
        """Whether `content` stands at `offset`: a comparison in place, at the speed of memcmp, without a copy."""
        return self.data.startswith(content, self._start + offset)


def batch_blocks(block_size: int) -> int:
    """How many blocks a batch has."""
    return max(1, BATCH_BYTES // block_size)


def buffer_count(block_size: int, readers: int) -> int:
    """How many buffers a task uses: each reader may wait with one."""
    return max(FEWEST_BUFFERS + readers, POOL_BYTES // (batch_blocks(block_size) * block_size))
