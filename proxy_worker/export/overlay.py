"""Writes on top of a disk that doesn't change, in a file without a name that vanishes with the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from proxy_worker.contract.errors import TargetError
from proxy_worker.export.disk import Disk, Extent

_GRAIN: Final = 64 * 1024
"""Bytes that are copied together before the first write to any of them."""


class OverlayError(TargetError):
    """There is no room for what is written to an exported disk."""


class Overlay:
    """A disk of which some has been written. Implements `Disk`; thread-safe, writers one at a time."""

    def __init__(self, below: Disk, folder: Path) -> None:
        """Keep what is written in `folder`, which needs room for it. Raises `OverlayError`."""
        self.size_bytes, self.block_size = below.size_bytes, below.block_size
        self._below = below
        self._written = bytearray(-(-below.size_bytes // _GRAIN))
        self._writing = threading.Lock()
        try:
            self._file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, below.size_bytes)
        except OSError as error:
            raise OverlayError(
                f"overlay in {folder}",
                why=error.strerror or str(error),
                remedy="Name a folder of a local file system, such as ext4, XFS or btrfs.",
            ) from error

    def close(self) -> None:
        """Forget what was written. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on: what was written where it was, else what is below."""
        for at, stop, written in self._ranges(offset, len(view)):
            part = view[at - offset : stop - offset]
            if written:
                self._fill(part, at)
            else:
                self._below.read_into(at, part)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What was written counts as data, whatever it is."""
        for at, stop, written in self._ranges(offset, length):
            if written:
                yield Extent(stop - at, zero=False)
            else:
                yield from self._below.extents(at, stop - at)

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` at `offset`; raises OSError when there is no room."""
        with self._writing:
            first, last = offset // _GRAIN, (offset + len(data) - 1) // _GRAIN
            for grain in dict.fromkeys((first, last)):
                self._copy_up(grain, offset, offset + len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], offset + written)
            self._written[first : last + 1] = b"\1" * (last + 1 - first)

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros."""
        zeros = memoryview(bytes(min(length, 1 << 20)))
        for at in range(offset, offset + length, len(zeros)):
            self.write(at, zeros[: offset + length - at])

    def _copy_up(self, grain: int, begin: int, end: int) -> None:
        """Copy what lies below a grain that is about to be written in part, and hasn't been written before."""
        at = grain * _GRAIN
        stop = min(at + _GRAIN, self.size_bytes)
        if self._written[grain] or (begin <= at and stop <= end):
            return
        content = memoryview(bytearray(stop - at))
        self._below.read_into(at, content)
        os.pwrite(self._file, content, at)

    def _fill(self, view: memoryview, offset: int) -> None:
        filled = 0
        while filled < len(view):
            filled += os.preadv(self._file, [view[filled:]], offset + filled)

    def _ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """The range in pieces that were written, and that were not."""
        at, end = offset, offset + length
        while at < end:
            written = bool(self._written[at // _GRAIN])
            other = self._written.find(0 if written else 1, at // _GRAIN)
            stop = min(end, other * _GRAIN) if other >= 0 else end
            yield at, stop, written
            at = stop
