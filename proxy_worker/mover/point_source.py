"""A disk of a restore point as a source: what a copy of the point reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.program.closing import Closing
from proxy_worker.repository.errors import RepositoryDamageError
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.points import Point
from proxy_worker.repository.reader import PointReader
from proxy_worker.transport.source import require_range

_SEGMENTS_AT_HAND: Final = 4
"""A few, since several threads read at neighbouring places: 128 KiB each."""


class DamagedOriginalError(RepositoryDamageError):
    """A part of a restore point that is to be copied can't be read."""


def damaged_original(point: Point, disk_key: str, where: str, why: str) -> DamagedOriginalError:
    """The error for a part of a disk, e.g. bytes from and to, that can't be copied."""
    return DamagedOriginalError(
        f"disk {disk_key} of {point.vm_name} in restore point {point.run}, at {where}",
        why=why,
        remedy="Nothing damaged was stored. `proxy-worker repository prove` mends what can be mended.",
    )


class PointSource(Closing):
    """Reads a disk block by block, each verified against its id. Closing it leaves the reader open."""

    mode = TransportMode.DIRECT_STORAGE
    parallel_reads = 2

    def __init__(self, reader: PointReader, disk_key: str, *, repository: str) -> None:
        """`repository` is what people call the one that is read. Raises what reading the disk's map raises."""
        self._reader = reader
        self._map = reader.map(disk_key)
        self._name = f"disk {disk_key} of {reader.point.vm_name} in restore point {reader.point.run}"
        self._disk_key = disk_key
        self._segments: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = self._map.size_bytes
        self.mode_reason = f"copied from restore point {reader.point.run} of {repository}"

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The blocks that aren't zeros, neighbours joined."""
        begin = end = offset
        for block in range(offset // self._map.block_size, -(-(offset + length) // self._map.block_size)):
            at = block * self._map.block_size
            if self._block_id(block) == ZERO_ID:
                continue
            if at > end:
                if end > begin:
                    yield Extent(offset=begin, length=end - begin)
                begin = at
            end = min(at + self._map.block_size, offset + length)
        if end > begin:
            yield Extent(offset=begin, length=end - begin)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`; raises `DamagedOriginalError` where a block is lost or isn't what it should be."""
        require_range(self._name, self.size_bytes, offset, len(view))
        size = self._map.block_size
        first, end = offset // size, -(-(offset + len(view)) // size)
        whole = min(end * size, self.size_bytes) - first * size
        try:
            ids = [self._block_id(block) for block in range(first, end)]
            if whole == len(view):
                self._reader.read_blocks_into(ids, view)
                return
            blocks = bytearray(whole)  # the other repository's blocks are smaller
            self._reader.read_blocks_into(ids, memoryview(blocks))
        except DamageError as error:
            place = f"{first * size} to {first * size + whole}"
            raise damaged_original(self._reader.point, self._disk_key, place, str(error)) from error
        at = offset - first * size
        view[:] = blocks[at : at + len(view)]

    def close(self) -> None:
        """Nothing to let go of."""

    def _block_id(self, block: int) -> bytes:
        number, place = divmod(block, self._map.blocks_per_segment)
        segment_id = self._map.segments[number]
        if segment_id == ZERO_ID:
            return ZERO_ID
        with self._lock:
            ids = self._segments.get(number)
            if ids is None:
                ids = self._reader.segment_ids(segment_id)
                if len(ids) != self._map.block_count(number) * ID_BYTES:
                    raise RepositoryDamageError(
                        f"segment {segment_id.hex()} of {self._name}", why="it has another length than its map says"
                    )
                self._segments[number] = ids
                if len(self._segments) > _SEGMENTS_AT_HAND:
                    self._segments.popitem(last=False)
        return ids[place * ID_BYTES : (place + 1) * ID_BYTES]
