"""A layer that outlives its process: what was written and flushed is there again after a crash, at any moment.

It is two files: the data, as large as the disk and sparse, and the marks, a byte for each grain that says where the
grain is read. Both are there, whole, before anything is written: one that is missing or shorter is damage, never
taken for one that nothing was written to. `flush` makes the data durable before the marks that lead to it. A mark
that a crash took was of a write that nobody had flushed: its grain reads as before, and whoever wrote it writes it
again.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConflictError, DamageError
from proxy_worker.export.disk import Disk
from proxy_worker.export.overlay import Layer, OverlayError, grains

_PAGE: Final = 4096
"""Marks that are written together."""


class OverlayDamagedError(DamageError):
    """The files of a layer aren't those of its disk."""


class OverlayBusyError(ConflictError):
    """The files of a layer are open in another process: two would not know of each other's writes."""

    retryable = True


def make_files(size_bytes: int, data: Path, marks: Path) -> None:
    """Make the files of a disk of that size: durable, but for their names. Raises OSError."""
    for path, length in ((data, size_bytes), (marks, grains(size_bytes))):
        with path.open("ab") as file:
            file.truncate(length)
            os.fsync(file.fileno())


class DurableOverlay(Layer):
    """A layer in two files that `make_files` has made; they are this process's alone while it is open."""

    def __init__(self, below: Disk, data: Path, marks: Path) -> None:
        """Raises `OverlayBusyError`, `OverlayDamagedError`, `OverlayError`."""
        size, count = below.size_bytes, grains(below.size_bytes)
        with ExitStack() as failing:
            try:
                self._marks = _opened(marks, failing)
                fcntl.flock(self._marks, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file = _opened(data, failing)
                lengths = os.fstat(file).st_size, os.fstat(self._marks).st_size
                states = bytearray(os.pread(self._marks, count, 0))
            except BlockingIOError as error:
                raise OverlayBusyError(
                    f"what was written in {data}",
                    why="another process has it open",
                    remedy="A server that is ending lets go of it when all is flushed.",
                ) from error
            except FileNotFoundError as error:
                raise _damaged(data, f"{error.filename} is missing") from error
            except OSError as error:
                raise OverlayError(f"writes kept in {data}", why=error.strerror or str(error)) from error
            if lengths != (size, count):
                raise _damaged(
                    data, f"it and its marks have {lengths[0]} and {lengths[1]} bytes, not {size} and {count}"
                )
            failing.pop_all()
        super().__init__(below, file, states)
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


def _opened(path: Path, failing: ExitStack) -> int:
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    failing.callback(os.close, number)
    return number


def _damaged(data: Path, why: str) -> OverlayDamagedError:
    return OverlayDamagedError(f"what was written in {data}", why=why, remedy="Restore the disk anew.")


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
