"""Scratch folders: temporary ones that are gone at the next start when their process was killed.

A user's all lie in one folder, `proxyfleet-<user id>` where temporary files go (`TMPDIR`, or /tmp). Whoever makes
one holds a lock on it, which the kernel takes back however the process ends. What nobody holds a lock on has no
owner any more: it is removed when the next one is made, and when a proxy starts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from proxy_worker.contract.errors import StoreError

_PRIVATE: Final = 0o700
_UNLOCKED: Final = "new-"
"""Begins the names of those that have no lock yet."""
_MAKING_S: Final = 3600.0
"""Nobody takes so long from making one to locking it."""


class ScratchError(StoreError):
    """Temporary files can't be kept where they go."""


class ScratchFolder:
    """A folder of this process' own, until `remove` or the end of the `with` block."""

    def __init__(self, purpose: str) -> None:
        """`purpose` begins its name, for people. Raises `ScratchError`."""
        with _errors() as home:
            _sweep(home)
            made = Path(tempfile.mkdtemp(prefix=_UNLOCKED, dir=home))
            self._lock = _open(made)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # Only now may it be swept: a lock on all of them would stay with a process that is forked just then.
            self.path = made.rename(home / f"{purpose}-{made.name.removeprefix(_UNLOCKED)}")

    def remove(self) -> None:
        """Remove it and what is in it. Idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def sweep_scratch() -> None:
    """Remove what killed processes of this user have left. Raises `ScratchError`."""
    with _errors() as home:
        _sweep(home)


@contextmanager
def _errors() -> Iterator[Path]:
    """The folder of them all; turns what the operating system says of it into `ScratchError`."""
    home = Path(tempfile.gettempdir()) / f"proxyfleet-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            home.mkdir(_PRIVATE)
        _require_private(home)
        yield home
    except OSError as error:
        raise ScratchError(
            f"temporary files in {home}",
            why=error.strerror or str(error),
            remedy="Set TMPDIR to a folder with some room that this user may write.",
        ) from error


def _require_private(home: Path) -> None:
    """Others may write where temporary files go, and so have made this first."""
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & ~_PRIVATE:
        raise PermissionError(errno.EPERM, "it isn't a folder of this user alone")


def _sweep(home: Path) -> None:
    for folder in home.iterdir():
        with suppress(OSError):
            if folder.name.startswith(_UNLOCKED) and time.time() - folder.stat().st_mtime < _MAKING_S:
                continue
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
