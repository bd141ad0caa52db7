"""The reference disk one day later, and the same two days spread over a disk sixteen times as large.

About 4% of the 4 KiB blocks are rewritten in clusters, as a day of work does: files replaced, database pages
edited in place, free space filled, random data, some ranges zeroed. The changed areas are reported in 64 KiB
pieces, as changed-block tracking reports them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reference_disk import (
    FILESYSTEM_BLOCK,
    MIB,
    SEED,
    SYSTEM_SHARE,
    divide,
    make_first_day,
    system_files,
)

CHANGED_SHARE = 0.04
AREA_GRANULE = 64 << 10
SPREAD_PIECE = 64 * MIB
SPREAD_FACTOR = 16
LARGEST_RUN = 4096


@dataclass(frozen=True)
class ReferenceDisks:
    """Two days of one disk, and of the same data spread over a disk that is `SPREAD_FACTOR` times as large."""

    first: Path
    second: Path
    areas: Path
    """JSON `[[offset, length], …]` in bytes: what changed between the days, in pieces of 64 KiB."""
    wide_first: Path
    wide_second: Path
    wide_areas: Path

    @property
    def size_bytes(self) -> int:
        return self.first.stat().st_size

    @property
    def touched_bytes(self) -> int:
        return sum(length for _, length in json.loads(self.areas.read_text()))


class _FreshContent:
    """An endless supply of file content that the first day doesn't have."""

    def __init__(self, files: list[Path], chance: random.Random) -> None:
        chance.shuffle(files)
        self._files = files
        self._next = 0
        self._buffer = b""

    def take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._buffer += self._files[self._next % len(self._files)].read_bytes()
            self._next += 1
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken


def _rewritten(old: bytes, chance: random.Random, fresh: _FreshContent) -> bytes | None:
    """What a day makes of a run of blocks; None leaves it as it is."""
    luck = chance.random()
    if not any(old):
        return fresh.take(len(old)) if luck < 0.5 else None
    if luck < 0.45:
        return fresh.take(len(old))
    if luck < 0.85:
        pages = bytearray(old)
        for page in range(0, len(pages), FILESYSTEM_BLOCK):
            at = page + chance.randrange(3600)
            pages[at : at + 400] = chance.randbytes(200).hex().encode()
        return bytes(pages)
    if luck < 0.95:
        return chance.randbytes(len(old))
    return bytes(len(old))


def make_second_day(first: Path, second: Path, areas: Path, rest: list[Path], seed: int = SEED) -> None:
    """Copy `first` to `second` and change it; writes the changed areas to `areas`."""
    subprocess.run(["cp", "--sparse=always", str(first), str(second)], check=True)
    chance = random.Random(seed + 1)
    fresh = _FreshContent([path for path in rest if path.stat().st_size > 64 << 10], chance)
    blocks = first.stat().st_size // FILESYSTEM_BLOCK
    changed: set[int] = set()
    with first.open("rb") as old_disk, second.open("r+b") as new_disk:
        while len(changed) < blocks * CHANGED_SHARE:
            centre = chance.randrange(256, blocks - LARGEST_RUN)
            for _ in range(chance.randrange(2, 14)):
                length = min(LARGEST_RUN, max(1, int(chance.lognormvariate(3.6, 1.4))))
                start = min(blocks - length, max(256, centre + int(chance.gauss(0, 3000))))
                old_disk.seek(start * FILESYSTEM_BLOCK)
                new = _rewritten(old_disk.read(length * FILESYSTEM_BLOCK), chance, fresh)
                if new is not None:
                    new_disk.seek(start * FILESYSTEM_BLOCK)
                    new_disk.write(new)
                    changed.update(range(start, start + length))
    granules = sorted({block * FILESYSTEM_BLOCK // AREA_GRANULE for block in changed})
    areas.write_text(json.dumps([[offset, length] for offset, length in _joined(granules)]))


def _joined(granules: list[int]) -> Iterator[tuple[int, int]]:
    start = previous = granules[0]
    for granule in [*granules[1:], -1]:
        if granule != previous + 1:
            yield start * AREA_GRANULE, (previous + 1 - start) * AREA_GRANULE
            start = granule
        previous = granule


def spread(disk: Path, wide: Path) -> None:
    """The data of `disk`, 64 MiB of it at the start of every GiB of a sparse disk sixteen times as large."""
    wide.unlink(missing_ok=True)
    size = disk.stat().st_size
    with disk.open("rb") as source, wide.open("wb") as target:
        target.truncate(size * SPREAD_FACTOR)
        position = 0
        while position < size:
            try:
                position = os.lseek(source.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            position -= position % MIB
            piece = os.pread(source.fileno(), MIB, position)
            if any(piece):
                index, within = divmod(position, SPREAD_PIECE)
                os.pwrite(target.fileno(), piece, index * SPREAD_PIECE * SPREAD_FACTOR + within)
            position += MIB


def spread_areas(areas: Path, wide: Path) -> None:
    """The changed areas of `spread`'s disk."""
    moved = []
    for offset, length in json.loads(areas.read_text()):
        position, end = offset, offset + length
        while position < end:
            index, within = divmod(position, SPREAD_PIECE)
            step = min(end - position, SPREAD_PIECE - within)
            moved.append([index * SPREAD_PIECE * SPREAD_FACTOR + within, step])
            position += step
    wide.write_text(json.dumps(moved))


def prepare(folder: Path, size_bytes: int) -> ReferenceDisks:
    """The disks in `folder`, made unless an earlier run has made them."""
    folder.mkdir(parents=True, exist_ok=True)
    disks = ReferenceDisks(
        first=folder / "day1.raw",
        second=folder / "day2.raw",
        areas=folder / "areas.json",
        wide_first=folder / "wide-day1.raw",
        wide_second=folder / "wide-day2.raw",
        wide_areas=folder / "wide-areas.json",
    )
    if not disks.wide_areas.exists():
        print(f"making the reference disks of {size_bytes >> 30} GiB in {folder} (once, a few minutes)", flush=True)
        make_first_day(disks.first, size_bytes)
        _, rest = divide(system_files(SEED), int(size_bytes * SYSTEM_SHARE))
        make_second_day(disks.first, disks.second, disks.areas, [file.path for file in rest])
        spread(disks.first, disks.wide_first)
        spread(disks.second, disks.wide_second)
        spread_areas(disks.areas, disks.wide_areas)
    return disks
