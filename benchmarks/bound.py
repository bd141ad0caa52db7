"""The bound: what each stage of a full backup costs by itself on the reference disk's blocks, in one thread.

Read into a reused buffer, test for zeros, keyed BLAKE3, zstd, AES-256-GCM, write past the page cache, and fsync:
the libraries' own time, nothing of ours around it. A pipeline that overlapped all of it perfectly would take the
sum divided by the cores.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.codec import Compressor

BLOCK_BYTES = 256 << 10
BATCH_BLOCKS = 64
WRITE_BYTES = 1 << 20


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


def bound_s(disk: Path, scratch: Path) -> tuple[float, Stages]:
    """The least seconds that a full backup of `disk` could take with this process's cores; and the stages."""
    stages = Stages()
    key, nonce = os.urandom(32), bytes(12)
    cipher, compress = AESGCM(key), Compressor(CompressionLevel.OPTIMAL).compress
    zeros = bytes(BLOCK_BYTES)
    buffer = bytearray(BLOCK_BYTES * BATCH_BLOCKS)
    pending, piece = 0, memoryview(mmap.mmap(-1, WRITE_BYTES))  # page-aligned; what is in it doesn't matter
    with disk.open("rb", buffering=0) as source, open(scratch, "wb", buffering=0, opener=_past_the_cache) as target:
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
            compressed = [compress(view[at : at + BLOCK_BYTES])[1] for at in kept]
            packed = time.perf_counter()
            sealed = [cipher.encrypt(nonce, data, None) for data in compressed]
            encrypted = time.perf_counter()
            pending += sum(map(len, sealed))
            while pending >= WRITE_BYTES:
                pending -= target.write(piece)
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


def _past_the_cache(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


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
