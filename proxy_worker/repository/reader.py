"""Readers: blocks of one restore point, verified against their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from proxy_worker.contract.errors import DamageError, StoreError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.errors import MissingBlockError
from proxy_worker.repository.index_run import Location
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import DiskMap, load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, StoredFile
from proxy_worker.repository.registration import Renewal, register_reader
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, StoreReadOnlyError

_SPAN_BYTES: Final = 4 * 1024 * 1024
"""At most so much is read at once."""
_GAP_BYTES: Final = 64 * 1024
"""Reading over so much that isn't wanted is cheaper than a second read."""

_Wanted = tuple[str, int, int, int, Location]
"""Pack, offset, stored length, number of the block, location."""


class PointReader:
    """Reads one restore point; all methods may be called from any number of threads at once."""

    def __init__(self, access: Access, chunks: ChunkReader, point: Point, *, mark: str | None) -> None:
        """`mark`: that of this reader, as `register_reader` has left it."""
        self.point = point
        self.block_size = access.block_size
        self._store = access.store
        self._sealer = access.sealer
        self._chunks = chunks
        self._mark = mark
        self._at_work = Renewal(self._renew_mark)
        self._zeros = bytes(self.block_size)

    def map(self, disk_key: str) -> DiskMap:
        """The disk's map."""
        return load_map(self._chunks, self.point.disk(disk_key).map_id)

    def segment_ids(self, segment_id: bytes) -> bytes:
        """The block ids of a segment, 32 bytes each; a segment of zeros (`ZERO_ID`) has none to read."""
        return self._chunks.read_metadata(ChunkKind.SEGMENT, segment_id)

    def read_blocks_into(self, ids: Sequence[bytes], view: memoryview) -> int:
        """Fill `view` with consecutive blocks: block i at i * block_size, the last as long as is left of the view.

        Zero ids give zeros. Neighbours in one pack are read together (ask for 8 to 32 blocks at a time), every
        block is verified against its id, every copy of a damaged one is tried. Returns the bytes read from the
        store. Raises `MissingBlockError` or `RepositoryDamageError`.
        """
        self._at_work.if_due()
        size, read_bytes = self.block_size, 0
        wanted: list[_Wanted] = []
        for number, block_id in enumerate(ids):
            if block_id == ZERO_ID:
                target = view[number * size : (number + 1) * size]
                target[:] = self._zeros[: len(target)]
            elif copies := self._chunks.locate(block_id, ChunkKind.BLOCK):
                copy = copies[0]
                wanted.append((copy.pack.name, copy.offset, copy.stored_length, number, copy))
            else:
                self._read_alone(block_id, view[number * size : (number + 1) * size])
        for span in _spans(sorted(wanted, key=_place)):
            read_bytes += self._read_span(span, ids, view)
        return read_bytes

    def read_block(self, block_id: bytes, length: int | None = None) -> bytes:
        """One block, the fastest way to a single one; raises as `read_blocks_into` does, also when it isn't of
        the `length` that is given."""
        self._at_work.if_due()
        block = self._first_copy(block_id)
        if block is None:
            buffer = bytearray(self.block_size)
            block = bytes(buffer[: self._chunks.read_block_into(block_id, memoryview(buffer))])
        if length is not None:
            self._require_whole(block_id, len(block), length)
        return block

    def _first_copy(self, block_id: bytes) -> bytes | None:
        """A block out of its first copy, without copying it about; None if that can't be had."""
        for copy in self._chunks.locate(block_id, ChunkKind.BLOCK)[:1]:
            stored = self._chunks.scratch(copy.stored_length)
            with suppress(ObjectNotFoundError, ObjectUnreadableError, DamageError):
                got = self._store.read_into(copy.pack.name, copy.offset, stored)
                return bytes(self._chunks.open_block(copy, block_id, stored[:got]))
        return None

    def read_range_into(self, disk_key: str, offset_bytes: int, view: memoryview) -> bool:
        """Fill `view` from a place of a disk, whatever the size of its blocks; False if the disk ends before.

        Raises as `read_blocks_into` does.
        """
        disk_map = self.map(disk_key)
        if offset_bytes + len(view) > disk_map.size_bytes:
            return False
        size, done = disk_map.block_size, 0
        while done < len(view):
            block, within = divmod(offset_bytes + done, size)
            content = bytearray(min(size, disk_map.size_bytes - block * size))
            self.read_blocks_into([self._block_id(disk_map, block)], memoryview(content))
            piece = content[within : within + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        return True

    def _block_id(self, disk_map: DiskMap, block: int) -> bytes:
        segment, place = divmod(block, disk_map.blocks_per_segment)
        segment_id = disk_map.segments[segment]
        if segment_id == ZERO_ID:
            return ZERO_ID
        return self.segment_ids(segment_id)[place * ID_BYTES : (place + 1) * ID_BYTES]

    def read_file(self, file: StoredFile) -> bytes:
        """A configuration file of the VM."""
        content = bytearray(file.size_bytes)
        self.read_blocks_into(file.block_ids, memoryview(content))
        return bytes(content)

    def close(self) -> None:
        """Remove the reader's mark from the repository, if it can be: a collector forgets old ones. Idempotent."""
        if self._mark:
            with suppress(StoreReadOnlyError):
                self._store.delete(self._mark)
            self._mark = None

    def __enter__(self) -> PointReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _renew_mark(self) -> None:
        """Have it dated today: there are two for a moment, never none. Reading goes on if that can't be."""
        with suppress(StoreError):
            fresh = register_reader(self._store, self._sealer, vm_id=self.point.vm_id, run=self.point.run)
            earlier, self._mark = self._mark, fresh or self._mark
            if fresh and earlier:
                self._store.delete(earlier)

    def _read_span(self, span: list[_Wanted], ids: Sequence[bytes], view: memoryview) -> int:
        name, begin, *_ = span[0]
        _, last, last_length, *_ = span[-1]
        buffer = self._chunks.scratch(last + last_length - begin)
        try:
            got = self._store.read_into(name, begin, buffer)
        except (ObjectNotFoundError, ObjectUnreadableError):
            got = 0
        for _, offset, stored, number, location in span:
            at = offset - begin
            target = view[number * self.block_size : (number + 1) * self.block_size]
            try:
                if at + stored > got:
                    raise self._chunks.damage(name, "it is missing or cut short")
                length = self._chunks.open_block_into(location, ids[number], buffer[at : at + stored], target)
            except DamageError:
                # Other blocks of the span are in the scratch buffer, which the slow way leaves alone.
                length = self._read_alone(ids[number], target)
            self._require_whole(ids[number], length, len(target))
        return got

    def _read_alone(self, block_id: bytes, target: memoryview) -> int:
        length = self._chunks.read_block_into(block_id, target)
        self._require_whole(block_id, length, len(target))
        return length

    def _require_whole(self, block_id: bytes, length: int, needed: int) -> None:
        if length != needed:
            raise MissingBlockError(
                f"block {block_id.hex()}", why=f"it holds {length} bytes where {needed} are needed"
            )


def _place(wanted: _Wanted) -> tuple[str, int]:
    return wanted[0], wanted[1]


def _spans(wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Group by what one read can fetch."""
    span: list[_Wanted] = []
    begin = end = 0
    for item in wanted:
        name, offset, stored, *_ = item
        if span and (name != span[0][0] or offset > end + _GAP_BYTES or offset + stored - begin > _SPAN_BYTES):
            yield span
            span = []
        if not span:
            begin = offset
        span.append(item)
        end = offset + stored
    if span:
        yield span
