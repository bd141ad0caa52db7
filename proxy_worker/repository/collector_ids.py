"""Sets of ids larger than memory: kept in files by the first bits of the id, taken out one part at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID

PREFIXES: Final = 1 << 16
_IDS_IN_PART: Final = 50_000
_HELD_BYTES: Final = 16 * 1024 * 1024
_REPEATED_BYTES: Final = 256 * 1024
"""A part that has grown by so much, and twofold, is rid of what it holds twice."""
_ID: Final = struct.Struct(f"{ID_BYTES}s")
_ZEROS: Final = ZERO_ID * 64
_MANY_ZEROS: Final = _ZEROS * 8
"""So many ids of zeros are passed over at once: a disk may consist of little else."""


def part_count(ids: int) -> int:
    """In how many parts to keep so many ids; a power of two."""
    parts = 1
    while parts < PREFIXES and ids // parts > _IDS_IN_PART:
        parts *= 2
    return parts


def without_zeros(ids: bytes) -> bytes:
    """Ids, 32 bytes each, without those of zeros."""
    if ZERO_ID not in ids:
        return ids
    kept: list[bytes] = []
    for many in _but(_MANY_ZEROS, ids):
        for piece in _but(_ZEROS, many):
            kept += [one for (one,) in _ID.iter_unpack(piece) if one != ZERO_ID]
    return b"".join(kept)


def _but(zeros: bytes, ids: bytes) -> Iterator[bytes]:
    """Ids in pieces as long as `zeros`, without those pieces that are the same."""
    for at in range(0, len(ids), len(zeros)):
        piece = ids[at : at + len(zeros)]
        if piece != zeros:
            yield piece


class IdSet:
    """Add any number of ids in any order, then take out one part after the other, each without repetition."""

    def __init__(self, folder: Path, parts: int) -> None:
        folder.mkdir()
        self.parts = parts
        self._folder = folder
        self._shift = (PREFIXES // parts).bit_length() - 1
        self._buffers: dict[int, bytearray] = {}
        self._held_bytes = 0
        self._written: dict[int, int] = {}
        self._unique: dict[int, int] = {}

    def add(self, ids: bytes) -> None:
        """Add ids, 32 bytes each; those of zeros don't count."""
        for piece in _but(_ZEROS, ids):
            self._add(piece)
        if self._held_bytes > _HELD_BYTES:
            self._flush()

    def _add(self, ids: bytes) -> None:
        buffers, shift = self._buffers, self._shift
        self._held_bytes += len(ids)
        if self.parts == 1:
            buffers.setdefault(0, bytearray()).extend(ids)
            return
        for at in range(0, len(ids), ID_BYTES):
            part = ((ids[at] << 8) | ids[at + 1]) >> shift
            buffer = buffers.get(part)
            if buffer is None:
                buffer = buffers[part] = bytearray()
            buffer += ids[at : at + ID_BYTES]

    def part(self, number: int) -> set[bytes]:
        """The ids whose first bits are `number`."""
        found = _split(self._read(number))
        found |= _split(bytes(self._buffers.get(number, b"")))
        found.discard(ZERO_ID)
        return found

    def _flush(self) -> None:
        for part, buffer in self._buffers.items():
            with self._path(part).open("ab") as file:
                file.write(buffer)
            self._written[part] = self._written.get(part, 0) + len(buffer)
            if self._written[part] > 2 * self._unique.get(part, 0) + _REPEATED_BYTES:
                unique = b"".join(_split(self._read(part)))
                self._path(part).write_bytes(unique)
                self._written[part] = self._unique[part] = len(unique)
        self._buffers = {}
        self._held_bytes = 0

    def _read(self, part: int) -> bytes:
        return self._path(part).read_bytes() if part in self._written else b""

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:04x}"


def _split(joined: bytes) -> set[bytes]:
    return {joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES)}
