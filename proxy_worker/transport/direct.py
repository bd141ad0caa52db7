"""Direct storage: raw images and flat VMDKs, read in place.

What the page cache holds is taken from there, and what a read brings in is dropped again, so that backing up
a disk of a terabyte doesn't evict what the machine works with: Linux does that itself from 6.14 on
(RWF_DONTCACHE). Elsewhere the pages are marked as used once only, the first to go.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.program.closing import Closing
from proxy_worker.transport.image import DiskImage
from proxy_worker.transport.source import DiskShrunkError, DiskUnreadableError, require_range
from proxy_worker.transport.vmdk import SECTOR_BYTES

PARALLEL_READS: Final = 2
_DONT_CACHE: Final = 0x80  # RWF_DONTCACHE, Linux 6.14; Python has no name for it yet
_NOT_POSSIBLE: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True)
class _Part:
    """A piece of the disk that lies in one file, or nowhere (zeros)."""

    start: int
    length: int
    path: str
    fd: int | None = None
    flags: int = 0
    """How its file is read: flags of preadv."""
    file_offset: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length

    def disk_offset(self, file_offset: int) -> int:
        """Where in the disk a place of the file is."""
        return file_offset - self.file_offset + self.start


class DirectSource(Closing):
    """A `DiskSource` over the files of a flat disk."""

    parallel_reads = PARALLEL_READS

    def __init__(
        self, image: DiskImage, *, reason: str, mode: TransportMode = TransportMode.DIRECT_STORAGE
    ) -> None:
        """Take over `image`, which must be flat; closing the source closes it."""
        self.mode = mode
        self.mode_reason = reason
        self.size_bytes = image.size_bytes
        self._name = image.path
        self._image = image
        self._parts = tuple(_layout(image))
        self._starts = [part.start for part in self._parts]

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges that the files don't have holes in. Raises DiskShrunkError, DiskUnreadableError."""
        require_range(self._name, self.size_bytes, offset, length)
        for part, start, end in self._within(offset, length):
            if part.fd is None:
                continue
            shift = part.file_offset - part.start
            for data, hole in _data_ranges(part, part.fd, start + shift, end + shift):
                yield Extent(offset=data - shift, length=hole - data)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the disk's `offset` on. Raises DiskShrunkError, DiskUnreadableError."""
        require_range(self._name, self.size_bytes, offset, len(view))
        for part, start, end in self._within(offset, len(view)):
            target = view[start - offset : end - offset]
            if part.fd is None:
                for at in range(0, len(target), len(_ZEROS)):
                    piece = target[at : at + len(_ZEROS)]
                    piece[:] = _ZEROS[: len(piece)]
            else:
                _read_part(part, part.fd, start - part.start + part.file_offset, target)

    def _within(self, offset: int, length: int) -> Iterator[tuple[_Part, int, int]]:
        """The parts that a range touches, each with where it does."""
        end = offset + length
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            part = self._parts[index]
            stop = min(end, part.end)
            yield part, offset, stop
            offset = stop
            index += 1

    def close(self) -> None:
        """Close the files. May be called again."""
        self._image.close()


def _layout(image: DiskImage) -> Iterator[_Part]:
    """Where the disk's bytes are, from its start to its end."""
    if image.raw is not None:
        if image.size_bytes:
            yield _Part(0, image.size_bytes, image.path, image.raw.fd, _reading_flags(image.raw.fd))
        return
    layer = image.layers[0]
    start = 0
    for extent, file in zip(layer.descriptor.extents, layer.files, strict=True):
        if file is None:
            yield _Part(start, extent.size_bytes, image.path)
        else:
            offset = extent.offset_sectors * SECTOR_BYTES
            yield _Part(start, extent.size_bytes, file.path, file.fd, _reading_flags(file.fd), offset)
        start += extent.size_bytes


def _reading_flags(fd: int) -> int:
    """The flags by which reading a file spares the page cache, as far as its file system can."""
    try:
        os.preadv(fd, [bytearray(1)], 0, _DONT_CACHE)
    except OSError:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NOREUSE)
        return 0
    return _DONT_CACHE


def _data_ranges(part: _Part, fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file, from and to, that aren't holes."""
    while start < end:
        try:
            data = os.lseek(fd, start, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no more data: either a hole, or the file has been cut
                _require_length(part, fd, end)
                return
            if error.errno not in _NOT_POSSIBLE:
                raise _unreadable(part, start, error) from error
            data, hole = start, end
        if data >= end:
            return
        yield data, min(hole, end)
        start = hole


def _require_length(part: _Part, fd: int, end: int) -> None:
    size = os.lseek(fd, 0, os.SEEK_END)
    if size < end:
        raise _shrunk(part, size, end)


def _read_part(part: _Part, fd: int, offset: int, view: memoryview) -> None:
    """Fill `view` from a file."""
    end = offset + len(view)
    while view:
        try:
            count = os.preadv(fd, [view], offset, part.flags)
        except OSError as error:
            raise _unreadable(part, offset, error) from error
        if count == 0:
            raise _shrunk(part, offset, end)
        offset += count
        view = view[count:]


def _unreadable(part: _Part, offset: int, error: OSError) -> DiskUnreadableError:
    why = os.strerror(error.errno) if error.errno else str(error)
    return DiskUnreadableError(
        f"can't read {part.path} at {part.disk_offset(offset)}", offset=part.disk_offset(offset), why=why
    )


def _shrunk(part: _Part, size: int, needed: int) -> DiskShrunkError:
    return DiskShrunkError(
        f"{part.path} shrank while it was read, at {part.disk_offset(size)}",
        offset=part.disk_offset(size),
        why=f"its file ends at {size}, but {needed} bytes were expected",
        remedy="Let nothing change the disk during a backup.",
    )
