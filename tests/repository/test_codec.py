"""How blocks are compressed, and which are stored as they are."""

from __future__ import annotations

import random

import pytest

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.codec import Codec, Compressor, Decompressor

BLOCK_BYTES = 256 << 10
LEVELS = [CompressionLevel.FAST, CompressionLevel.OPTIMAL, CompressionLevel.HIGH, CompressionLevel.EXTREME]


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("level", LEVELS)
def test_incompressible_blocks_are_stored_as_they_are(level: CompressionLevel) -> None:
    compressor = Compressor(level)
    for seed in range(3):
        block = noise(BLOCK_BYTES, seed)
        assert compressor.compress(block) == (Codec.PLAIN, block)


@pytest.mark.parametrize("size", [1, 100, 4096, 10_000, BLOCK_BYTES])
@pytest.mark.parametrize("third", [0, 1, 2])
def test_a_block_that_compresses_anywhere_it_is_sampled_is_compressed_after_an_incompressible_one(
    third: int, size: int
) -> None:
    compressor = Compressor(CompressionLevel.OPTIMAL)
    assert compressor.compress(noise(BLOCK_BYTES, 1))[0] is Codec.PLAIN
    text = b"the same words over and over, " * (size // 20 + 10)
    parts = [noise(size, 2), noise(size, 3), noise(size, 4)]
    parts[third] = text[: size + 300]
    block = b"".join(parts)
    codec, data = compressor.compress(block)
    assert codec is Codec.ZSTD
    assert Decompressor().decompress(data, len(block)) == block
    assert compressor.compress(text)[0] is Codec.ZSTD
