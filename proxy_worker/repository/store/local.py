"""A store in a local folder: one file an object.

An object is written under `tmp/`, synced, and linked to its name: link(2) fails where the name exists, so the
first wins, and a name never shows half an object. The folder is synced after. A shared NFS or SMB mount is fine
as long as one host writes it; their caches break listing right after writing.

What the umask allows holds for the owner and the group, so that several users can share a repository. Others get
nothing: names tell of VMs and runs, and a repository need not be encrypted.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import (
    Buffer,
    ObjectNotFoundError,
    ObjectUnreadableError,
    StoreFullError,
    StoreMissingError,
    StoreReadOnlyError,
    checked_name,
    checked_prefix,
    is_object_name,
)
from proxy_worker.repository.store.tally import RequestTally

_DIRECT_BYTES: Final = 1024 * 1024
"""Larger objects are written past the page cache, in pieces of this size: packs aren't read soon, and copying them
to the cache cost more processor time than anything but compression (measured: 3 s for 1.4 GiB, against 0.1 s)."""
_CACHED_BYTES: Final = 256 * 1024
"""Larger single writes through the cache cost far more kernel time (measured: 1 MiB pieces took twice as long)."""
_TEMPORARY: Final = "tmp"
_FILE_MODE: Final = 0o660
_FOLDER_MODE: Final = 0o770
_FOLDER_ATTEMPTS: Final = 16
"""An object's folder goes with its last object, also while another is about to get its name there."""


class LocalStore:
    """Objects as files below `root`."""

    requests: RequestTally | None = None

    def __init__(self, root: Path) -> None:
        self._root = root
        self.location = str(root)

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """See `Store`."""
        writer = self.create(name)
        try:
            for chunk in chunks:
                writer.write(chunk)
            return writer.finish()
        finally:
            writer.discard()

    def create(self, name: str) -> LocalStoreWriter:
        """See `Store`."""
        return LocalStoreWriter(self, checked_name(name))

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`."""
        writer = self.create(name)
        try:
            for chunk in chunks:
                writer.write(chunk)
            writer.finish(replace=True)
        finally:
            writer.discard()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        with self._opened(name) as file:
            if length is None:
                length = max(0, os.fstat(file).st_size - offset)
            pieces = []
            while length > 0 and (piece := os.pread(file, length, offset)):
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See `Store`."""
        done = 0
        with self._opened(name) as file:
            while done < len(view) and (count := os.preadv(file, [view[done:]], offset + done)):
                done += count
        return done

    def size(self, name: str) -> int:
        """See `Store`."""
        with self.errors("read", name):
            return os.stat(f"{self.location}/{checked_name(name)}").st_size  # noqa: PTH116 - asked very often

    def exists(self, name: str) -> bool:
        """See `Store`."""
        try:
            self.size(name)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        folder = prefix.rstrip("/")
        yield from self._list(folder) if checked_prefix(prefix) else ()

    def delete(self, name: str) -> None:
        """See `Store`."""
        path = f"{self.location}/{checked_name(name)}"
        with suppress(ObjectNotFoundError), self.errors("delete", name):
            os.unlink(path)  # noqa: PTH108 - a collection deletes very many
        with suppress(OSError):  # folders that something is in
            for _ in range(name.count("/") - 1):
                path = path.rpartition("/")[0]
                os.rmdir(path)  # noqa: PTH106 - the same

    def leftovers(self) -> Iterator[str]:
        """See `Store`."""
        yield from self._list(_TEMPORARY)

    def remove_leftovers(self, *, before: float) -> int:
        """See `Store`."""
        removed = 0
        for name in self.leftovers():
            path = self._root / name
            with suppress(ObjectNotFoundError), self.errors("delete", name):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    def prepare(self) -> None:
        """See `Store`: the folder itself, and what shows that it isn't an empty one."""
        with self.errors("create", self.location):
            _make_folders(self._root / _TEMPORARY)

    def require(self) -> None:
        """Raise `StoreMissingError` unless the folder is there, with something in it: an unmounted file system
        leaves an empty one."""
        if not self._root.is_dir() or not any(self._root.iterdir()):
            raise StoreMissingError(
                f"repository {self.location}",
                why="there is no such folder, or it is empty",
                remedy="Is its file system mounted?",
            )

    def temporary_path(self) -> Path:
        """A fresh path for an object that has no name yet."""
        return self._root / _TEMPORARY / secrets.token_hex(12)

    def path(self, name: str) -> Path:
        """The file of an object."""
        return self._root / name

    @contextmanager
    def errors(self, action: str, name: str) -> Iterator[None]:
        """Turn what the operating system says into what a store says."""
        try:
            yield
        except OSError as error:
            raise self._translated(action, name, error) from error

    def _translated(self, action: str, name: str, error: OSError) -> StoreError:
        what = f"can't {action} {name} in {self.location}"
        why = os.strerror(error.errno) if error.errno else str(error)
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR if action != "write":
                return ObjectNotFoundError(what, why="there is no such object")
            case errno.EIO if action == "read":
                return ObjectUnreadableError(what, why=why, remedy="See the kernel's log for errors of the disk.")
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                return StoreFullError(what, why=why, remedy="Free space, or add some, and start the run again.")
            case errno.EROFS | errno.EACCES | errno.EPERM:
                return StoreReadOnlyError(
                    what, why=why, remedy="Make the folder writable for the user that this process runs as."
                )
            case errno.ENOENT:
                return StoreMissingError(what, why=why, remedy="Is the repository's file system mounted?")
            case _:
                return StoreError(what, why=why)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:  # no `self.errors` and no `Path`: opening is half of what a small read costs
            file = os.open(f"{self.location}/{checked_name(name)}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise self._translated("read", name, error) from error

    def _list(self, folder: str) -> Iterator[str]:
        try:
            with self.errors("list", folder), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._list(f"{folder}/{entry.name}")
                    elif is_object_name(name := f"{folder}/{entry.name}"):
                        yield name
        except ObjectNotFoundError:
            return


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
                _make_folders(self._temporary.parent)
                self._file = os.open(self._temporary, flags, _FILE_MODE)
        self._open = True
        self._used = 0
        self._direct = False
        self._direct_refused = False
        self._failure: StoreError | None = None
        """Nobody knows what is in the file after that."""

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`."""
        if self._failure:
            raise self._failure
        view = memoryview(data)
        while view:
            taken = min(len(view), _DIRECT_BYTES - self._used)
            self._gathered[self._used : self._used + taken] = view[:taken]
            self._used += taken
            view = view[taken:]
            if self._used == _DIRECT_BYTES:
                with self._writing():
                    self._set_direct(not self._direct_refused)
                    self._spill()

    def end(self) -> None:
        """See `StoreWriter`."""

    def finish(self, *, replace: bool = False) -> bool:
        """See `StoreWriter`; `replace` takes the name from whatever has it."""
        if self._failure:
            raise self._failure
        path = self._store.path(self._name)
        with self._writing():
            self._set_direct(False)
            self._spill()
            os.fsync(self._file)
            try:
                self._give_name(path, replace=replace)
                named = True
            except FileExistsError:
                named = False
            self.discard()
            # Also under a taken name: whoever took it may have been killed before it was durable.
            _sync_folder(path.parent)
        return named

    def discard(self) -> None:
        """See `StoreWriter`."""
        if self._open:
            self._open = False
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

    def _spill(self) -> None:
        """Write what has been gathered."""
        with memoryview(self._gathered) as gathered:
            done = 0
            while done < self._used:
                end = self._used if self._direct else min(self._used, done + _CACHED_BYTES)
                try:
                    done += os.write(self._file, gathered[done:end])
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._direct:
                        raise
                    # The file system takes none after all, or only part of the last piece had room.
                    self._direct_refused = True
                    self._set_direct(False)
        self._used = 0

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
                    _make_folders(path.parent)
            else:
                return
        give(self._temporary, path)


def _page_aligned(size_bytes: int) -> mmap.mmap:
    """Memory as direct I/O wants it; raises `MemoryError`, where `mmap` raises `OSError`."""
    try:
        return mmap.mmap(-1, size_bytes)
    except OSError as error:
        raise MemoryError(f"no {size_bytes} bytes for a buffer") from error


def _make_folders(folder: Path) -> None:
    """mkdir -p, each new folder durable in its parent."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(_FOLDER_MODE)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
