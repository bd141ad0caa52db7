"""A layer that outlives its process: what was written and flushed is there again after a crash, at any moment.

It is two files: the data, as large as the disk and sparse, and the marks, a byte for each grain that says where the
grain is read. `flush` makes the data durable before the marks that lead to it. A mark that a crash took was of a
write that nobody had flushed: its grain reads as before, and whoever wrote it writes it again.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.export.disk import Disk
from proxy_worker.export.overlay import Layer, OverlayError, grains

_PAGE: Final = 4096
"""Marks that are written together."""


class OverlayDamagedError(DamageError):
    """The files of a layer aren't those of its disk."""


class DurableOverlay(Layer):
    """A layer in two named files, made at the first time and found again later."""

    def __init__(self, below: Disk, data: Path, marks: Path) -> None:
        """Raises `OverlayError`, `OverlayDamagedError`."""
        size, count = below.size_bytes, grains(below.size_bytes)
        try:
            self._marks = os.open(marks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            file = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            states = bytearray(os.pread(self._marks, count, 0))
            lengths = os.fstat(file).st_size, os.fstat(self._marks).st_size
            if not any(states) and lengths[1] in {0, count}:
                os.ftruncate(file, size)
                os.ftruncate(self._marks, count)
            elif lengths != (size, count):
                raise OverlayDamagedError(
                    f"what was written in {data}",
                    why=f"it and its marks have {lengths[0]} and {lengths[1]} bytes, not {size} and {count}",
                    remedy="Restore the disk anew.",
                )
        except OSError as error:
            raise OverlayError(f"writes kept in {data}", why=error.strerror or str(error)) from error
        super().__init__(below, file, states or bytearray(count))
        self._closing = weakref.finalize(self, _close, file, self._marks)
        """Closes the files of one that is dropped only when nobody reads or writes it any more."""
        self._unmarked: set[int] = set()
        """Pages of marks that differ from their file."""
        self._flushing = threading.Lock()
        self._failed: OSError | None = None
        """Of the first flush that failed: the kernel may have dropped what it couldn't write, and says so once."""

    def flush(self) -> None:
        """Return when everything written so far is durable. Raises OSError; then nothing of it may be relied on."""
        with self._flushing:
            if self._failed is not None:
                raise self._failed
            with self._writing:
                pages = sorted(self._unmarked)
                marks = {page: bytes(self._states[page * _PAGE : (page + 1) * _PAGE]) for page in pages}
                self._unmarked.clear()
            try:
                os.fdatasync(self._file)
                for page, content in marks.items():
                    os.pwrite(self._marks, content, page * _PAGE)
                if marks:
                    os.fdatasync(self._marks)
            except OSError as error:
                self._failed = error
                raise

    def close(self) -> None:
        """Make everything durable, and let go of the files. Idempotent."""
        if self._closing.alive:
            try:
                self.flush()
            finally:
                self._closing()
                self._file = self._marks = -1

    def _changed(self, first: int, last: int) -> None:
        self._unmarked.update(range(first // _PAGE, (last - 1) // _PAGE + 1))


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
