"""Disk maps: the root of the hash tree over a disk."""

from __future__ import annotations

import msgspec

from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import PACK_ID_BYTES, ChunkKind


class DiskMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk as a list of segments."""

    size_bytes: int
    block_size: int
    blocks_per_segment: int
    segment_ids: bytes
    """32 bytes each; `ZERO_ID` for a segment of zeros, which isn't stored."""
    pack_ids: bytes
    """16 bytes each: packs that it was stored in or compared with. More than it needs, never fewer when it was
    committed, and advice only once packs have been rewritten."""

    @property
    def segments(self) -> tuple[bytes, ...]:
        """The segment ids."""
        return _split(self.segment_ids, ID_BYTES)

    @property
    def packs(self) -> tuple[bytes, ...]:
        """The pack ids."""
        return _split(self.pack_ids, PACK_ID_BYTES)

    def block_count(self, segment: int) -> int:
        """How many blocks a segment has; fewer than usual at the disk's end."""
        blocks = -(-self.size_bytes // self.block_size)
        return max(0, min(self.blocks_per_segment, blocks - segment * self.blocks_per_segment))


def segment_count(size_bytes: int, block_size: int, blocks_per_segment: int) -> int:
    """How many segments a disk has."""
    return -(-size_bytes // (block_size * blocks_per_segment))


def load_map(chunks: ChunkReader, map_id: bytes) -> DiskMap:
    """Read a map, and see that it adds up; raises `MissingBlockError`, `RepositoryDamageError`."""
    encoded = chunks.read_metadata(ChunkKind.MAP, map_id)
    name = f"map/{map_id.hex()}"
    try:
        disk_map = msgspec.msgpack.decode(encoded, type=DiskMap)
        expected = segment_count(disk_map.size_bytes, disk_map.block_size, disk_map.blocks_per_segment)
    except (msgspec.MsgspecError, ZeroDivisionError) as error:
        raise chunks.damage(name, f"it is not a disk map: {error}") from error
    if len(disk_map.segment_ids) != expected * ID_BYTES or len(disk_map.pack_ids) % PACK_ID_BYTES:
        raise chunks.damage(name, "its segments don't cover the disk")
    return disk_map


def is_zero_segment(ids: bytes) -> bool:
    """Whether all of a segment's blocks are zeros."""
    return ids.count(0) == len(ids)


def _split(joined: bytes, length: int) -> tuple[bytes, ...]:
    return tuple(joined[at : at + length] for at in range(0, len(joined), length))
