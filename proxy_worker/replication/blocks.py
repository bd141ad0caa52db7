"""Blocks of a disk and their digests: what there is to compare, and the sum that both ends must agree on.

A digest is BLAKE3 of the block, keyed by the target's proxy, 16 bytes: two ends compare the same place of one disk,
so that only a block's own successor can be taken for it. A block of zeros has the digest `ZERO`, whatever the key.
The root of a disk is the sum of its blocks' digests, each times an odd number of its place: it can be kept up to
date block by block, in any order, and doesn't need those that haven't changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import blake3

from proxy_worker.contract.subjects import Extent

BLOCK_BYTES: Final = 256 << 10
DIGEST_BYTES: Final = 16
KEY_BYTES: Final = 32
ZERO: Final = bytes(DIGEST_BYTES)
UNKNOWN: Final = b"\xff" * DIGEST_BYTES
"""Stands in a table for a block that hasn't been read."""
ZEROS: Final = bytes(BLOCK_BYTES)
STRETCH_BLOCKS: Final = 1024
"""Digests are asked for 256 MiB of the disk at a time: 16 KiB."""
PIECE_BLOCKS: Final = 8
"""What one thread reads, compares and sends at a time: 2 MiB."""
_MODULUS: Final = 1 << (8 * DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring blocks to look at."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Pieces that lie within one stretch of the disk, ascending."""

    pieces: tuple[Piece, ...]

    @property
    def first(self) -> int:
        """Its first block."""
        return self.pieces[0].first

    @property
    def count(self) -> int:
        """How many blocks lie from its first to its last, those between its pieces included."""
        last = self.pieces[-1]
        return last.first + last.count - self.first


def digest_of(key: bytes, block: memoryview | bytes) -> bytes:
    """The digest of a block that isn't all zeros."""
    return blake3.blake3(block, key=key).digest(DIGEST_BYTES)


def block_count(size_bytes: int) -> int:
    """How many blocks a disk has; the last may be shorter."""
    return -(-size_bytes // BLOCK_BYTES)


def block_length(size_bytes: int, index: int) -> int:
    """How many bytes a block of a disk has."""
    return min(BLOCK_BYTES, size_bytes - index * BLOCK_BYTES)


def share(index: int, digest: bytes) -> int:
    """What a block's digest adds to the root."""
    return int.from_bytes(digest) * (2 * index + 1) % _MODULUS


def root_of(digests: memoryview | bytes) -> int:
    """The root of a disk, by the digests of all its blocks."""
    total = 0
    for index in range(len(digests) // DIGEST_BYTES):
        total += share(index, bytes(digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]))
    return total % _MODULUS


def moved_root(root: int, by: int) -> int:
    """A root after shares were added and taken away."""
    return (root + by) % _MODULUS


def root_bytes(root: int) -> bytes:
    """A root as it is told."""
    return root.to_bytes(DIGEST_BYTES)


def stretches(size_bytes: int, areas: Sequence[Extent] | None) -> Iterator[Stretch]:
    """What there is to look at: every block, or with areas, which ascend, those that they touch."""
    total = block_count(size_bytes)
    touched = iter([(0, total)] if areas is None else _touched(areas, total))
    pieces: list[Piece] = []
    for begin, end in touched:
        at = begin
        while at < end:
            count = min(PIECE_BLOCKS - at % PIECE_BLOCKS, end - at)
            if pieces and pieces[0].first // STRETCH_BLOCKS != at // STRETCH_BLOCKS:
                yield Stretch(tuple(pieces))
                pieces = []
            pieces.append(Piece(at, count))
            at += count
    if pieces:
        yield Stretch(tuple(pieces))


def _touched(areas: Sequence[Extent], total: int) -> Iterator[tuple[int, int]]:
    """The blocks that areas touch, as ranges that neither overlap nor meet."""
    begin = end = 0
    for area in areas:
        first = max(area.offset // BLOCK_BYTES, end)
        last = min(-(-(area.offset + area.length) // BLOCK_BYTES), total)
        if last <= first:
            continue
        if first > end:
            if end > begin:
                yield begin, end
            begin = first
        end = last
    if end > begin:
        yield begin, end
