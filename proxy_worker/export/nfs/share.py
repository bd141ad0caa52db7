"""A folder that clients mount: real files, of which some are disks with a layer on a restore point.

A file is known to clients by its inode's number, which a restart of the server doesn't change. There are no links
in a share, and no way to make any.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from proxy_worker.export.durable import DurableOverlay

TOKEN_BYTES: Final = 16
"""Of a share's name, which is random: whoever doesn't know it can't mount it."""
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW


class StaleError(Exception):
    """What a client holds isn't there any more."""


class Share:
    """What one client mounts."""

    def __init__(self, token: bytes, root: Path, disks: Mapping[str, DurableOverlay]) -> None:
        """`disks` are there by their files' names in the root folder."""
        self.token = token
        self.root = root
        self.disks = disks
        self._paths: dict[int, Path] = {}
        self._lock = threading.Lock()

    def path_of(self, inode: int) -> Path:
        """Where the file of that number is. Raises `StaleError`."""
        with self._lock:
            path = self._paths.get(inode)
            if path is not None and _inode(path) == inode:
                return path
            self._paths = {number: found for found in self._all() if (number := _inode(found)) is not None}
            if inode not in self._paths:
                raise StaleError
            return self._paths[inode]

    def disk(self, path: Path) -> DurableOverlay | None:
        """The disk whose file this is."""
        return self.disks.get(path.name) if path.parent == self.root else None

    def read(self, path: Path, offset: int, length: int) -> tuple[bytes | bytearray, bool]:
        """What a file holds there, and whether it ends with that. Raises OSError, `ProxyfleetError`."""
        disk = self.disk(path)
        if disk is None:
            with _opened(path, os.O_RDONLY) as file:
                data = os.pread(file.number, length, offset)
                return data, offset + len(data) >= os.fstat(file.number).st_size
        length = max(0, min(length, disk.size_bytes - offset))
        view = bytearray(length)
        disk.read_into(offset, memoryview(view))
        return view, offset + length >= disk.size_bytes

    def write(self, path: Path, offset: int, data: memoryview) -> None:
        """Put it there; durable after `sync`. Raises OSError, `ProxyfleetError`."""
        disk = self.disk(path)
        if disk is not None:
            if offset + len(data) > disk.size_bytes:
                raise OSError(27, "a disk doesn't grow")
            disk.write(offset, data)
            return
        with _opened(path, os.O_WRONLY) as file:
            put = 0
            while put < len(data):
                put += os.pwrite(file.number, data[put:], offset + put)

    def sync(self, path: Path) -> None:
        """Return when all that was written to a file is durable. Raises OSError."""
        disk = self.disk(path)
        if disk is not None:
            disk.flush()
            return
        with _opened(path, os.O_WRONLY) as file:
            os.fsync(file.number)

    def close(self) -> None:
        """Make everything durable, and let go of it."""
        for disk in self.disks.values():
            disk.close()

    def _all(self) -> list[Path]:
        found = [self.root]
        for folder, folders, files in os.walk(self.root):
            found += [Path(folder, name) for name in (*folders, *files)]
        return found


Shares = Callable[[bytes], Share | None]
"""Finds the share of a token, if there is one now."""


class _opened:  # noqa: N801 - a context manager
    """A file's descriptor, for as long as the block lasts."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path, self._flags = path, flags
        self.number = -1

    def __enter__(self) -> _opened:
        self.number = os.open(self._path, self._flags | _FLAGS)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def make_durable(folder: Path) -> None:
    """Make the names in a folder durable."""
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as opened:
        os.fsync(opened.number)


def write_durably(path: Path, text: str) -> None:
    """Make a file that is durable; its name is for `make_durable`. Raises OSError."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _inode(path: Path) -> int | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return None if stat.S_ISLNK(found.st_mode) else found.st_ino
