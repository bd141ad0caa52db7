"""A store in a local folder: one file an object.

An object is written under `tmp/`, synced, and linked to its name: link(2) fails where the name exists, so the
first wins, and a name never shows half an object. The folder is synced after. A shared NFS or SMB mount is fine
as long as one host writes it; their caches break listing right after writing.

What the umask allows holds for the owner and the group, so that several users can share a repository. Others get
nothing: names tell of VMs and runs, and a repository need not be encrypted.

Folders may be links to others, as where a repository has outgrown its file system.
"""

from __future__ import annotations

import errno
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
from proxy_worker.repository.store.local_writer import LocalStoreWriter, make_folders
from proxy_worker.repository.store.tally import RequestTally

_TEMPORARY: Final = "tmp"
_DEEPEST: Final = 4
"""Slashes in the name of a folder that objects may lie in."""


class LocalStore:
    """Objects as files below `root`."""

    requests: RequestTally | None = None

    def __init__(self, root: Path) -> None:
        self._root = root
        self.location = str(root)

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """See `Store`."""
        return self._put(name, chunks, replace=False)

    def create(self, name: str) -> LocalStoreWriter:
        """See `Store`."""
        return LocalStoreWriter(self, checked_name(name))

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`."""
        self._put(name, chunks, replace=True)

    def _put(self, name: str, chunks: Iterable[Buffer], *, replace: bool) -> bool:
        writer = self.create(name)
        try:
            for chunk in chunks:
                writer.write(chunk)
            return writer.finish(replace=replace)
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
        """See `Store`. Raises `StoreMissingError` where all is gone, which is no empty repository."""
        yield from self._list(checked_prefix(prefix).rstrip("/"))

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
            make_folders(self._root / _TEMPORARY)

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
                    name = f"{folder}/{entry.name}"
                    if entry.is_dir():
                        if folder.count("/") < _DEEPEST:
                            yield from self._list(name)
                    elif is_object_name(name):
                        if entry.is_symlink():
                            self._require_target(name)
                        yield name
        except ObjectNotFoundError:
            self.require()
            self._require_target(folder)

    def _require_target(self, name: str) -> None:
        """Raise `StoreMissingError` for a link that leads nowhere: what lies behind it is no empty folder."""
        path = self._root / name
        if path.is_symlink() and not path.exists():
            raise StoreMissingError(
                f"{name} in {self.location}",
                why=f"it is a link to {path.readlink()}, and there is nothing",
                remedy="Is the file system mounted that it leads to?",
            )
