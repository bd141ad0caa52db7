"""How a pack is laid out, to the byte.

header    magic, pack id
chunks    one after the other, no gaps
table     sealed and signed: data keys, and for each chunk its place, key, nonce, codec, kind and ids
footer    in clear: offset, length and XXH3-128 of each chunk
trailer   counts, offsets, XXH3-128 of the table, XXH3-128 of header + footer + trailer so far, magic
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
import xxhash

from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.store import Buffer

MAGIC: Final = b"PFPACK\x00\x01"
END_MAGIC: Final = b"PFPACK\x00\x02"
PACK_ID_BYTES: Final = 16
HEADER_BYTES: Final = len(MAGIC) + PACK_ID_BYTES
MAX_BLOCKS_IN_CHUNK: Final = 16
MAX_CHUNKS: Final = 1 << 20
_CHECKSUM_BYTES: Final = 16
FOOTER_ENTRY: Final = struct.Struct("<II16s")
"""Offset, stored length, XXH3-128 of the stored bytes."""
_TRAILER: Final = struct.Struct("<IIII16s16s8s")
TRAILER_BYTES: Final = _TRAILER.size
_CHUNK: Final = struct.Struct("<IIIIHBBBx")
"""Offset, stored length, nonce counter, plain length, data key, codec, kind, blocks in the chunk."""


class ChunkKind(IntEnum):
    """What a chunk holds."""

    BLOCK = 0
    SEGMENT = 1
    MAP = 2


_KINDS: Final = frozenset(ChunkKind)


class PackLayoutError(ValueError):
    """The bytes aren't a pack, or not that pack; the message says where it breaks."""


class Chunk(NamedTuple):
    """A stored chunk, as the table describes it."""

    offset: int
    stored_length: int
    nonce: int
    plain_length: int
    key_index: int
    codec: int
    kind: int
    ids: bytes
    """32 bytes for each of its blocks, in order."""


class PackTable(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The table's payload."""

    pack_id: bytes
    data_keys: tuple[SealedDataKey, ...]
    chunks: bytes
    ids: bytes

    @classmethod
    def of(cls, pack_id: bytes, data_keys: Sequence[SealedDataKey], chunks: Sequence[Chunk]) -> PackTable:
        """Encode the chunks."""
        packed = b"".join(_CHUNK.pack(*chunk[:7], len(chunk.ids) // ID_BYTES) for chunk in chunks)
        return cls(pack_id, tuple(data_keys), packed, b"".join(chunk.ids for chunk in chunks))

    def is_whole(self) -> bool:
        """Whether records and ids add up; only then may the chunks be gone through."""
        if len(self.chunks) % _CHUNK.size:
            return False
        ids = 0
        for *_, kind, count in _CHUNK.iter_unpack(self.chunks):
            if kind not in _KINDS or not 1 <= count <= MAX_BLOCKS_IN_CHUNK:
                return False
            ids += count
        return ids * ID_BYTES == len(self.ids)

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, in the order of their offsets."""
        position = 0
        for *fields, count in _CHUNK.iter_unpack(self.chunks):
            end = position + count * ID_BYTES
            yield Chunk._make((*fields, self.ids[position:end]))
            position = end


@dataclass(frozen=True, slots=True)
class Footer:
    """What a pack says in clear."""

    entries: bytes
    table_offset: int
    table_length: int
    table_checksum: bytes
    size_bytes: int

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset, length and checksum of each chunk."""
        return FOOTER_ENTRY.iter_unpack(self.entries)

    def __len__(self) -> int:
        return len(self.entries) // FOOTER_ENTRY.size


def pack_name(pack_id: bytes) -> str:
    """Where a pack lies."""
    text = pack_id.hex()
    return f"packs/{text[:2]}/{text}"


def header_of(pack_id: bytes) -> bytes:
    """A pack's first bytes."""
    return MAGIC + pack_id


def footer_and_trailer(pack_id: bytes, entries: bytes, table_offset: int, table: Buffer) -> bytes:
    """What follows the table."""
    count, footer_offset = len(entries) // FOOTER_ENTRY.size, table_offset + len(table)
    checksum = xxhash.xxh3_128_digest(table)
    start = struct.pack("<IIII16s", count, table_offset, len(table), footer_offset, checksum)
    guard = xxhash.xxh3_128_digest(header_of(pack_id) + entries + start)
    return entries + start + guard + END_MAGIC


def footer_length(trailer: bytes) -> int:
    """From a pack's last `TRAILER_BYTES`: how long its footer is; raises `PackLayoutError`."""
    if len(trailer) != TRAILER_BYTES or trailer[-len(END_MAGIC) :] != END_MAGIC:
        raise PackLayoutError("it does not end as a pack does: cut short, or not a pack")
    count: int = _TRAILER.unpack(trailer)[0]
    if count > MAX_CHUNKS:
        raise PackLayoutError("its trailer is damaged")
    return count * FOOTER_ENTRY.size


def parse_footer(pack_id: bytes, header: bytes, entries: bytes, trailer: bytes, size_bytes: int) -> Footer:
    """Verify header, footer and trailer against each other and the pack's size; raises `PackLayoutError`."""
    count, table_offset, table_length, footer_offset, table_checksum, guard, _ = _TRAILER.unpack(trailer)
    if xxhash.xxh3_128_digest(header + entries + trailer[: 16 + _CHECKSUM_BYTES]) != guard:
        raise PackLayoutError("the checksum of its header, footer and trailer is wrong")
    if header != header_of(pack_id):
        raise PackLayoutError("it is another pack than its name says")
    end = HEADER_BYTES
    for offset, length, _ in FOOTER_ENTRY.iter_unpack(entries):
        if offset != end:
            raise PackLayoutError("its chunks don't follow one another")
        end += length
    complete = footer_offset + count * FOOTER_ENTRY.size + TRAILER_BYTES
    if (end, table_offset + table_length, complete) != (table_offset, footer_offset, size_bytes):
        raise PackLayoutError("its parts don't add up to its size")
    return Footer(entries, table_offset, table_length, table_checksum, size_bytes)
