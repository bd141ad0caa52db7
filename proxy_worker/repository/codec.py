"""Compression of blocks: one zstd context per thread and level, blocks as they are where that is no larger.

Figures on the reference disk (256 KiB blocks) are in the operator's guide.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Final

import zstandard

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.store import Buffer

ZSTD_LEVELS: Final[dict[CompressionLevel, int]] = {
    CompressionLevel.FAST: -5,
    CompressionLevel.OPTIMAL: 1,
    CompressionLevel.HIGH: 3,
    CompressionLevel.EXTREME: 9,
}
_TUNED: Final[dict[CompressionLevel, dict[str, int]]] = {
    CompressionLevel.OPTIMAL: {"min_match": 7, "hash_log": 15},
    CompressionLevel.HIGH: {"min_match": 5, "hash_log": 16, "chain_log": 14},
}
"""Measured on blocks of the reference disk. `optimal`: 4% less time than zstd 1 as it comes, both ways, for 0.2%
more bytes. `high`: a sixth less time than zstd 3, and no more bytes; tables this small stay in a core's cache
beside the block."""

_SAMPLE_BYTES: Final = 4 << 10
"""Of each place that is looked at. On the reference disk it spares nine tenths of what zstd spends on
incompressible blocks, a tenth of all that zstd takes, for 0.02% more bytes."""


class Codec(IntEnum):
    """How a chunk's plain bytes are stored."""

    PLAIN = 0
    ZSTD = 1


class Compressor:
    """Compresses. Thread-safe: each thread gets its own context."""

    def __init__(self, level: CompressionLevel) -> None:
        self.level: CompressionLevel = CompressionLevel.OPTIMAL if level is CompressionLevel.AUTO else level
        """May be changed at any time; `auto` is for whoever uses this to make something of."""
        self._threads = threading.local()

    def compress(self, block: Buffer) -> tuple[Codec, Buffer]:
        """The smaller of the compressed block and the block itself."""
        level = self.level
        if level not in ZSTD_LEVELS:
            return Codec.PLAIN, block
        if getattr(self._threads, "level", None) is not level:
            self._threads.level, self._threads.context = level, _context(level)
            self._threads.incompressible = False
        context: zstandard.ZstdCompressor = self._threads.context
        if self._threads.incompressible and _looks_incompressible(context, block):
            return Codec.PLAIN, block
        data = context.compress(block)
        self._threads.incompressible = len(data) >= len(block)
        return (Codec.PLAIN, block) if self._threads.incompressible else (Codec.ZSTD, data)


def _looks_incompressible(context: zstandard.ZstdCompressor, block: Buffer) -> bool:
    """Whether its beginning, middle and end together don't compress: asked after a block that didn't, which others
    of its file follow."""
    view = memoryview(block)
    middle = len(view) // 2
    sample = b"".join((view[:_SAMPLE_BYTES], view[middle : middle + _SAMPLE_BYTES], view[-_SAMPLE_BYTES:]))
    return len(context.compress(sample)) >= len(sample)


def _context(level: CompressionLevel) -> zstandard.ZstdCompressor:
    if level not in _TUNED:
        return zstandard.ZstdCompressor(
            level=ZSTD_LEVELS[level], write_content_size=True, write_checksum=False, write_dict_id=False
        )
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVELS[level], write_content_size=True, write_checksum=False, write_dict_id=False, **_TUNED[level]
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


class Decompressor:
    """Undoes `Compressor`. Thread-safe in the same way."""

    def __init__(self) -> None:
        self._threads = threading.local()

    def decompress(self, data: Buffer, plain_length: int) -> bytes:
        """The plain bytes of a zstd chunk; raises `zstandard.ZstdError`, also when it would be longer than said."""
        try:
            context: zstandard.ZstdDecompressor = self._threads.context
        except AttributeError:
            context = self._threads.context = zstandard.ZstdDecompressor()
        if zstandard.frame_content_size(data) != plain_length:
            raise zstandard.ZstdError("the frame is not of the length that the table says")
        return context.decompress(data)
