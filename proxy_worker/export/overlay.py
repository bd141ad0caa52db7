"""Writes on top of a disk that doesn't change, in a file beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import TargetError
from proxy_worker.export.disk import Disk, Extent
from proxy_worker.program.closing import Closing

GRAIN: Final = 64 * 1024
"""Bytes that are copied together before the first write to any of them."""
_BELOW, _WRITTEN, _ZERO = range(3)
"""Where a grain is read: on the disk below, in the file, nowhere."""


class OverlayError(TargetError):
    """There is no room for what is written to an exported disk."""


class Layer(Closing):
    """A disk of which some has been written. Implements `Disk`; thread-safe, writers one at a time."""

    def __init__(self, below: Disk, file: int, states: bytearray) -> None:
        """`file` is a descriptor that is ours from now on; `states` say of each grain where it is read."""
        self.size_bytes, self.block_size = below.size_bytes, below.block_size
        self._below = below
        self._states = states
        self._writing = threading.Lock()
        self._file = file

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on: what was written where it was, else what is below."""
        for at, stop, state in self._ranges(offset, len(view)):
            part = view[at - offset : stop - offset]
            if state == _WRITTEN:
                self._fill(part, at)
            elif state == _ZERO:
                part[:] = bytes(len(part))
            else:
                self._below.read_into(at, part)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What was written counts as data, whatever it is."""
        for at, stop, state in self._ranges(offset, length):
            if state == _BELOW:
                yield from self._below.extents(at, stop - at)
            else:
                yield Extent(stop - at, zero=state == _ZERO)

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` at `offset`; raises OSError when there is no room."""
        with self._writing:
            self._write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros; whole grains of it take no room."""
        with self._writing:
            first, last = -(-offset // GRAIN), (offset + length) // GRAIN
            if offset + length == self.size_bytes:
                last = len(self._states)
            if first >= last:
                self._write(offset, memoryview(bytes(length)))
                return
            self._write(offset, memoryview(bytes(first * GRAIN - offset)))
            end = min(last * GRAIN, self.size_bytes)
            self._write(end, memoryview(bytes(offset + length - end)))
            self._states[first:last] = bytes([_ZERO]) * (last - first)
            self._changed(first, last)

    def _write(self, offset: int, data: memoryview) -> None:
        if not data:
            return
        first, last = offset // GRAIN, (offset + len(data) - 1) // GRAIN
        for grain in dict.fromkeys((first, last)):
            self._copy_up(grain, offset, offset + len(data))
        self._put(offset, data)
        self._states[first : last + 1] = bytes([_WRITTEN]) * (last + 1 - first)
        self._changed(first, last + 1)

    def _changed(self, first: int, last: int) -> None:
        """Grains `first` to `last` are read elsewhere from now on."""

    def _copy_up(self, grain: int, begin: int, end: int) -> None:
        """Copy what a grain reads as that is about to be written in part, and isn't in the file."""
        at = grain * GRAIN
        stop = min(at + GRAIN, self.size_bytes)
        if self._states[grain] == _WRITTEN or (begin <= at and stop <= end):
            return
        content = memoryview(bytearray(stop - at))
        if self._states[grain] == _BELOW:
            self._below.read_into(at, content)
        self._put(at, content)

    def _put(self, offset: int, data: memoryview) -> None:
        put = 0
        while put < len(data):
            put += os.pwrite(self._file, data[put:], offset + put)

    def _fill(self, view: memoryview, offset: int) -> None:
        filled = 0
        while filled < len(view):
            filled += os.preadv(self._file, [view[filled:]], offset + filled)

    def _ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The range in pieces of one state each."""
        at, end = offset, offset + length
        while at < end:
            grain = at // GRAIN
            state = self._states[grain]
            alike = self._states[grain : -(-end // GRAIN)]
            stop = min(end, (grain + len(alike) - len(alike.lstrip(bytes([state])))) * GRAIN)
            yield at, stop, state
            at = stop


class Overlay(Layer):
    """A layer in a file without a name, that vanishes with the process."""

    def __init__(self, below: Disk, folder: Path) -> None:
        """Keep what is written in `folder`, which needs room for it. Raises `OverlayError`."""
        try:
            file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, below.size_bytes)
        except OSError as error:
            raise OverlayError(
                f"overlay in {folder}",
                why=error.strerror or str(error),
                remedy="Name a folder of a local file system, such as ext4, XFS or btrfs.",
            ) from error
        super().__init__(below, file, bytearray(grains(below.size_bytes)))


def grains(size_bytes: int) -> int:
    """How many grains a disk has."""
    return -(-size_bytes // GRAIN)
