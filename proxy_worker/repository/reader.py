"""Readers: blocks of one restore point, verified against their ids."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proxy_worker.repository.points import Point, StoredFile


class DiskMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root of the hash tree over a disk."""

    size_bytes: int
    block_size: int
    blocks_per_segment: int
    segments: tuple[bytes, ...]
    packs: tuple[bytes, ...]
    """Packs it was stored in or compared with: a superset, and advisory once packs were rewritten."""


class PointReader:
    """Reads one restore point; all methods may be called from any number of threads at once."""

    point: Point
    block_size: int

    def map(self, disk_key: str) -> DiskMap:
        """The disk's map."""
        raise NotImplementedError

    def segment_ids(self, segment_id: bytes) -> bytes:
        """The block ids of a segment, 32 bytes each."""
        raise NotImplementedError

    def read_blocks_into(self, ids: Sequence[bytes], view: memoryview) -> int:
        """Fill `view` with consecutive blocks: block i at i * block_size, the last as long as is left of the view.

        Zero ids give zeros. Neighbours in one pack are read together (ask for 8 to 32 blocks at a time), every block
        is verified against its id, every copy of a damaged one is tried. Returns the bytes read from the store.
        Raises `MissingBlockError` or `RepositoryDamageError`.
        """
        raise NotImplementedError

    def read_file(self, file: StoredFile) -> bytes:
        """A configuration file of the VM."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove the reader's mark from the repository. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> PointReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
