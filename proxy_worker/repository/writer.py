"""A writer: one attempt at one disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy_worker.contract.outcome import DiskReport
from proxy_worker.repository.codec import Codec
from proxy_worker.repository.points import Point, StoredFile
from proxy_worker.repository.store import Buffer

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class ParentDisk:
    """The same disk in an earlier restore point, for comparing digests."""

    run: str
    size_bytes: int
    segments: tuple[bytes, ...]
    """Segment ids; 32 zero bytes stand for a segment of zeros."""


class DiskWriter:
    """Stores one disk. `identify`, `has` and `compress` may be called from any number of threads at once;
    everything else from one thread at a time (the writer thread)."""

    block_size: int
    blocks_per_segment: int

    @property
    def stored_bytes(self) -> int:
        """Bytes added to the repository so far."""
        raise NotImplementedError

    def identify(self, block: Buffer) -> bytes:
        """The block's id: 32 bytes. Zero blocks are the caller's to spot: their id is `ZERO_ID`."""
        raise NotImplementedError

    def has(self, block_id: bytes) -> bool:
        """Whether the repository holds the block, so that it may be named without being stored."""
        raise NotImplementedError

    def compress(self, block: Buffer) -> tuple[Codec, Buffer]:
        """The block as it will be stored, before sealing; as it is when that is no larger. Releases the GIL."""
        raise NotImplementedError

    def store_block(self, block_id: bytes, codec: Codec, data: Buffer, plain_length: int) -> int:
        """Seal and append to the open pack; the bytes added, 0 if this writer has stored it before."""
        raise NotImplementedError

    def store_segment(self, ids: bytes) -> bytes:
        """Store the ids of consecutive blocks (32 bytes each, at most `blocks_per_segment`) and return the segment's id."""
        raise NotImplementedError

    def parent(self, point: Point, disk_key: str) -> ParentDisk | None:
        """The disk in `point`, if that point still counts (it is read again); None if it is gone or has no such disk."""
        raise NotImplementedError

    def segment_ids(self, segment_id: bytes) -> bytes:
        """The ids that a stored segment holds, e.g. a parent's. Thread-safe."""
        raise NotImplementedError

    def flush(self) -> None:
        """Close the open pack and publish everything stored, without waiting. Use it sparingly: packs get small."""
        raise NotImplementedError

    def mark(self) -> int:
        """A number for everything stored so far; compare with `durable_mark`."""
        raise NotImplementedError

    @property
    def durable_mark(self) -> int:
        """Everything up to this mark is in durable packs and published fragments. Thread-safe."""
        raise NotImplementedError

    def wait_durable(self, mark: int, timeout_s: float | None = None) -> bool:
        """Flush, and wait until `mark` is durable; False on timeout. Raises what went wrong in the background."""
        raise NotImplementedError

    def seal_checkpoint(self, state: bytes) -> str:
        """Seal the caller's resume state for the ledger, bound to repository, run and disk."""
        raise NotImplementedError

    def open_checkpoint(self, sealed: str) -> bytes:
        """The reverse, in a later attempt; raises `RepositoryDamageError` if it isn't this run's and disk's."""
        raise NotImplementedError

    def finish(
        self,
        *,
        size_bytes: int,
        segments: Sequence[bytes],
        report: DiskReport,
        source: str = "",
        configuration: Sequence[StoredFile] = (),
    ) -> str:
        """Store the disk map, wait until all is durable, and return the sealed result that a commit takes."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the open pack and stop the background work. Idempotent; harmless after `finish`."""
        raise NotImplementedError

    def __enter__(self) -> DiskWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
