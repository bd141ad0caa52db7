"""An object being written to a folder: a file under `tmp/` that gets its name when it is complete and durable.

What is large goes past the page cache, in pieces that a thread writes while the next one fills: data that doesn't
compress comes faster than the disk takes it, and whoever compresses the rest shouldn't wait for that.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy_worker.contract.errors import StoreError
from proxy_worker.program.durable import sync_folder
from proxy_worker.repository.store import Buffer

if TYPE_CHECKING:
    from proxy_worker.repository.store.local import LocalStore

_DIRECT_BYTES: Final = 1024 * 1024
"""Larger objects are written past the page cache, in pieces of this size: packs aren't read soon, and copying them
to the cache cost more processor time than anything but compression (measured: 3 s for 1.4 GiB, against 0.1 s)."""
_PIECES: Final = 3
"""Under way at most: with fewer the disk waits for threads to change places."""
_CACHED_BYTES: Final = 256 * 1024
"""Larger single writes through the cache cost far more kernel time (measured: 1 MiB pieces took twice as long)."""
_FILE_MODE: Final = 0o660
_FOLDER_MODE: Final = 0o770
_FOLDER_ATTEMPTS: Final = 16
"""An object's folder goes with its last object, also while another is about to get its name there."""


class LocalStoreWriter:
    """A file without a name yet."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._store = store
        self._name = name
        self._gathered = _page_aligned(_DIRECT_BYTES)
        self._temporary = store.temporary_path()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with store.errors("write", name):
            try:
                self._file = os.open(self._temporary, flags, _FILE_MODE)
            except FileNotFoundError:
                store.require()
                make_folders(self._temporary.parent)
                self._file = os.open(self._temporary, flags, _FILE_MODE)
        self._open = True
        self._used = 0
        self._direct = False
        self._direct_refused = False
        self._writer: ThreadPoolExecutor | None = None
        """One thread, since the order of the pieces is the file's."""
        self._under_way: deque[tuple[Future[None], mmap.mmap]] = deque()
        """Pieces that are being written or wait for that."""
        self._failure: StoreError | None = None
        """Nobody knows what is in the file after that."""

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`; what went wrong with a piece may come out with the next one."""
        if self._failure:
            raise self._failure
        view = memoryview(data)
        while view:
            taken = min(len(view), _DIRECT_BYTES - self._used)
            self._gathered[self._used : self._used + taken] = view[:taken]
            self._used += taken
            view = view[taken:]
            if self._used == _DIRECT_BYTES:
                self._hand_over()

    def end(self) -> None:
        """See `StoreWriter`."""

    def finish(self, *, replace: bool = False) -> bool:
        """See `StoreWriter`; `replace` takes the name from whatever has it."""
        if self._failure:
            raise self._failure
        path = self._store.path(self._name)
        with self._writing():
            while self._under_way:
                self._await_piece()
            self._set_direct(False)
            self._spill(self._gathered, self._used)
            os.fsync(self._file)
            try:
                self._give_name(path, replace=replace)
                named = True
            except FileExistsError:
                named = False
            self.discard()
            # Also under a taken name: whoever took it may have been killed before it was durable.
            sync_folder(path.parent)
        return named

    def discard(self) -> None:
        """See `StoreWriter`."""
        if self._open:
            self._open = False
            if self._writer:
                self._writer.shutdown()
            os.close(self._file)
            with suppress(OSError):
                self._temporary.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._store.errors("write", self._name):
                yield
        except StoreError as error:
            self._failure = error
            raise
        except BaseException:
            what = f"can't write {self._name} in {self._store.location}"
            self._failure = StoreError(what, why="it was interrupted in the middle")
            raise

    def _hand_over(self) -> None:
        """Have the piece that is full written, and gather the next one."""
        with self._writing():
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
            self._under_way.append((self._writer.submit(self._write_piece, self._gathered), self._gathered))
            self._used = 0
            if len(self._under_way) == _PIECES:
                self._gathered = self._await_piece()
            else:
                self._gathered = _page_aligned(_DIRECT_BYTES)

    def _await_piece(self) -> mmap.mmap:
        """The memory of the oldest piece under way; raises `OSError` where it couldn't be written."""
        written, memory = self._under_way.popleft()
        written.result()
        return memory

    def _write_piece(self, full: mmap.mmap) -> None:
        self._set_direct(not self._direct_refused)
        self._spill(full, len(full))

    def _spill(self, gathered: mmap.mmap, length: int) -> None:
        with memoryview(gathered) as view:
            done = 0
            while done < length:
                end = length if self._direct else min(length, done + _CACHED_BYTES)
                try:
                    done += os.write(self._file, view[done:end])
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._direct:
                        raise
                    # The file system takes none after all, or only part of the last piece had room.
                    self._direct_refused = True
                    self._set_direct(False)

    def _set_direct(self, direct: bool) -> None:
        if direct == self._direct:
            return
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags ^ os.O_DIRECT)
            self._direct = direct
        except OSError:  # some file systems have no direct I/O
            if not direct:
                raise
            self._direct_refused = True

    def _give_name(self, path: Path, *, replace: bool) -> None:
        give = os.replace if replace else os.link
        for _ in range(_FOLDER_ATTEMPTS):
            try:
                give(self._temporary, path)
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    make_folders(path.parent)
            else:
                return
        give(self._temporary, path)


def _page_aligned(size_bytes: int) -> mmap.mmap:
    """Memory as direct I/O wants it; raises `MemoryError`, where `mmap` raises `OSError`."""
    try:
        return mmap.mmap(-1, size_bytes)
    except OSError as error:
        raise MemoryError(f"no {size_bytes} bytes for a buffer") from error


def make_folders(folder: Path) -> None:
    """mkdir -p, each new folder durable in its parent."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(_FOLDER_MODE)
    sync_folder(folder.parent)
