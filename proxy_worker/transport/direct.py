"""Direct storage: raw images and flat VMDKs, read in place.

What the page cache holds is taken from there; the rest is read past it, so that backing up a disk of a
terabyte doesn't evict what the machine works with. Where neither direct I/O nor uncached reading is possible
(old kernels, some file systems), the pages are given back after reading.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.specification import Extent
from proxy_worker.transport.image import DiskImage
from proxy_worker.transport.source import DiskShrunkError, DiskUnreadableError, require_range
from proxy_worker.transport.vmdk import SECTOR_BYTES

PARALLEL_READS: Final = 2
_DONT_CACHE: Final = 0x80  # RWF_DONTCACHE, Linux 6.14; Python has no name for it yet
_NOT_THIS_WAY: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
_DIRECT_IO_FROM_BYTES: Final = 64 << 10
"""Smaller reads gain nothing by direct I/O, and lose what the kernel reads ahead."""
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True)
class _Part:
    """A piece of the disk that lies in one file, or nowhere (zeros)."""

    start: int
    length: int
    path: str
    fd: int | None = None
    uncached_fd: int | None = None
    """The same file, opened for direct I/O."""
    file_offset: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length


class DirectSource:
    """A `DiskSource` over the files of a flat disk."""

    mode = TransportMode.DIRECT_STORAGE
    parallel_reads = PARALLEL_READS

    def __init__(self, image: DiskImage, *, reason: str) -> None:
        """Take over `image`, which must be flat; closing the source closes it."""
        self.mode_reason = reason
        self.size_bytes = image.size_bytes
        self._name = image.path
        self._image = image
        self._uncached_fds: list[int] = []
        self._parts = tuple(self._layout(image))
        self._starts = [part.start for part in self._parts]
        self._closed = False

    def _layout(self, image: DiskImage) -> Iterator[_Part]:
        if image.raw is not None:
            if image.size_bytes:
                uncached = self._open_uncached(image.raw.fd)
                yield _Part(0, image.size_bytes, image.path, image.raw.fd, uncached)
            return
        layer = image.layers[0]
        start = 0
        for extent, file in zip(layer.descriptor.extents, layer.files, strict=True):
            if file is None:
                yield _Part(start, extent.size_bytes, image.path)
            else:
                offset = extent.offset_sectors * SECTOR_BYTES
                uncached = self._open_uncached(file.fd)
                yield _Part(start, extent.size_bytes, file.path, file.fd, uncached, offset)
            start += extent.size_bytes

    def _open_uncached(self, fd: int) -> int | None:
        """The file of `fd` opened once more for direct I/O, where its file system can."""
        try:
            uncached = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return None
        self._uncached_fds.append(uncached)
        return uncached

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
        if self._closed:
            return
        self._closed = True
        _close_all(self._uncached_fds)
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


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
            if error.errno not in _NOT_THIS_WAY:
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
    """Fill `view` from a file: what is cached first, the rest past the cache."""
    try:
        done = os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _NOT_THIS_WAY and error.errno != errno.EAGAIN:
            raise _unreadable(part, offset, error) from error
        done = 0
    while done < len(view):
        try:
            count = _read_uncached(part, fd, offset + done, view[done:])
        except OSError as error:
            raise _unreadable(part, offset + done, error) from error
        if count == 0:
            raise _shrunk(part, offset + done, offset + len(view))
        done += count


def _read_uncached(part: _Part, fd: int, offset: int, view: memoryview) -> int:
    """Read without leaving anything in the page cache, the best way that works. Raises OSError."""
    if part.uncached_fd is not None and len(view) >= _DIRECT_IO_FROM_BYTES:
        try:
            return os.preadv(part.uncached_fd, [view], offset)
        except OSError as error:
            if error.errno not in _NOT_THIS_WAY:
                raise
    # The buffer, the offset or the length isn't aligned, or the file system has no direct I/O.
    try:
        return os.preadv(fd, [view], offset, _DONT_CACHE)
    except OSError as error:
        if error.errno not in _NOT_THIS_WAY:
            raise
    count = os.preadv(fd, [view], offset)
    os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)
    return count


def _disk_offset(part: _Part, offset: int) -> int:
    return offset - part.file_offset + part.start


def _unreadable(part: _Part, offset: int, error: OSError) -> DiskUnreadableError:
    why = os.strerror(error.errno) if error.errno else str(error)
    return DiskUnreadableError(
        f"can't read {part.path} at {_disk_offset(part, offset)}", offset=_disk_offset(part, offset), why=why
    )


def _shrunk(part: _Part, size: int, needed: int) -> DiskShrunkError:
    return DiskShrunkError(
        f"{part.path} shrank while it was read, at {_disk_offset(part, size)}",
        offset=_disk_offset(part, size),
        why=f"its file ends at {size}, but {needed} bytes were expected",
        remedy="Let nothing change the disk during a backup.",
    )
