"""The bound: what each stage of a full backup costs by itself on the reference disk's blocks, in one thread.

Read into a reused buffer, test for zeros, keyed BLAKE3, zstd, AES-256-GCM, write and fsync: the libraries' own
time, nothing of ours around it. A pipeline that overlapped all of it perfectly would take the sum divided by the
cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK_BYTES = 256 << 10
BATCH_BLOCKS = 64
ZSTD_OPTIMAL = 1


@dataclass
class Stages:
    """Seconds of each stage, summed over the disk."""

    read: float = 0.0
    zero_test: float = 0.0
    hash: float = 0.0
    compress: float = 0.0
    encrypt: float = 0.0
    write: float = 0.0

    @property
    def total_s(self) -> float:
        return float(sum(asdict(self).values()))


def bound_s(disk: Path, scratch: Path, *, level: int = ZSTD_OPTIMAL) -> tuple[float, Stages]:
    """The least seconds that a full backup of `disk` could take with this process's cores; and the stages."""
    stages = Stages()
    key, nonce = os.urandom(32), bytes(12)
    cipher, compressor = AESGCM(key), zstandard.ZstdCompressor(level=level)
    zeros = bytes(BLOCK_BYTES)
    buffer = bytearray(BLOCK_BYTES * BATCH_BLOCKS)
    with disk.open("rb", buffering=0) as source, scratch.open("wb", buffering=0) as target:
        for offset, length in _extents(source.fileno(), disk.stat().st_size):
            start = time.perf_counter()
            view = memoryview(buffer)[:length]
            for at in range(0, length, 1 << 20):
                os.preadv(source.fileno(), [view[at : at + (1 << 20)]], offset + at)
            read = time.perf_counter()
            places = range(0, length, BLOCK_BYTES)
            kept = [at for at in places if not buffer.startswith(zeros, at)]
            tested = time.perf_counter()
            for at in kept:
                blake3(view[at : at + BLOCK_BYTES], key=key).digest()
            hashed = time.perf_counter()
            compressed = [compressor.compress(view[at : at + BLOCK_BYTES]) for at in kept]
            packed = time.perf_counter()
            sealed = [cipher.encrypt(nonce, data, None) for data in compressed]
            encrypted = time.perf_counter()
            for data in sealed:
                target.write(data)
            written = time.perf_counter()
            stages.read += read - start
            stages.zero_test += tested - read
            stages.hash += hashed - tested
            stages.compress += packed - hashed
            stages.encrypt += encrypted - packed
            stages.write += written - encrypted
        start = time.perf_counter()
        os.fsync(target.fileno())
        stages.write += time.perf_counter() - start
    scratch.unlink()
    return stages.total_s / len(os.sched_getaffinity(0)), stages


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The allocated ranges, widened to whole blocks and cut to batches."""
    position = 0
    batch = BLOCK_BYTES * BATCH_BLOCKS
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            return
        start = max(position, data - data % BLOCK_BYTES)
        hole = os.lseek(descriptor, data, os.SEEK_HOLE)
        end = min(size, -(-hole // BLOCK_BYTES) * BLOCK_BYTES)
        for offset in range(start, end, batch):
            yield offset, min(batch, end - offset)
        position = end
