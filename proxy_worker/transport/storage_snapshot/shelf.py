"""The folder where a provider keeps snapshots, each in a folder of its own whose name is its mark.

A snapshot is made under a name of its own attempt and gets its real one when it is whole; it loses it before it is
removed. So what has the real name is whole, whoever was killed when, and who makes it a second time loses.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Callable
from pathlib import Path

from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.program.durable import sync_folder
from proxy_worker.transport.storage_snapshot.provider import (
    StorageFullError,
    StorageSnapshotError,
    StorageSnapshotGoneError,
    StorageUnsuitableError,
    folder_name,
    is_partial,
    marked,
    partial_name,
)

_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNSUITABLE = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS})


class Shelf:
    """A snapshots folder. `delete` removes one snapshot's folder, whole or not; it raises OSError."""

    def __init__(self, folder: Path, *, what: str, delete: Callable[[Path], None]) -> None:
        self.folder = folder
        self.what = what
        """What is snapshotted, for errors: `datastore ds1`."""
        self._delete = delete

    def prepare(self) -> None:
        """Make the folder if it isn't there. Raises StorageSnapshotError."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise failed(f"can't keep storage snapshots of {self.what} in {self.folder}", error) from error

    def find(self, mark: StorageSnapshotMark) -> Path | None:
        """The folder of a whole snapshot."""
        path = self.folder / folder_name(mark)
        return path if path.is_dir() else None

    def require(self, mark: StorageSnapshotMark) -> Path:
        """As `find`; raises StorageSnapshotGoneError."""
        path = self.find(mark)
        if path is None:
            raise StorageSnapshotGoneError(
                f"storage snapshot {mark.journal} of {self.what} not found",
                why=f"{self.folder / folder_name(mark)} doesn't exist",
                remedy="Run the backup of the VM again.",
            )
        return path

    def begin(self, mark: StorageSnapshotMark) -> Path:
        """Where this attempt is to make a snapshot."""
        return self.folder / partial_name(mark, secrets.token_hex(4))

    def finish(self, partial: Path, mark: StorageSnapshotMark) -> None:
        """Give a snapshot that is whole its name, durably; one that exists by now wins. Raises OSError."""
        try:
            partial.rename(self.folder / folder_name(mark))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            self._delete(partial)
        sync_folder(self.folder)

    def discard(self, partial: Path) -> None:
        """Remove what an attempt that failed has made. Raises OSError."""
        if partial.exists():
            self._delete(partial)

    def remove(self, mark: StorageSnapshotMark) -> bool:
        """Remove a snapshot, whole or half made; False if there is none. Raises StorageSnapshotError."""
        what = f"removing storage snapshot {mark.journal} of {self.what}"
        try:
            whole = self.find(mark)
            if whole is not None:
                with contextlib.suppress(FileNotFoundError):  # another removes it too
                    whole.rename(self.begin(mark))
            halves = [path for path in self._entries() if is_partial(path.name, mark)]
            for path in halves:
                self._delete(path)
            if halves:
                sync_folder(self.folder)
        except OSError as error:
            raise failed(what, error) from error
        return bool(halves)

    def list(self, installation: str) -> tuple[str, ...]:
        """The journal entries of an installation that something is left of. Raises StorageSnapshotError."""
        try:
            found = {marked(path.name, installation) for path in self._entries()}
        except OSError as error:
            raise failed(f"listing storage snapshots of {self.what}", error) from error
        return tuple(sorted(journal for journal in found if journal is not None))

    def _entries(self) -> tuple[Path, ...]:
        return tuple(self.folder.iterdir()) if self.folder.is_dir() else ()


def failed(what: str, error: OSError, *, unsuitable: str = "") -> StorageSnapshotError:
    """The named error for what the file system said; `unsuitable` says what it should have been able to do."""
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFullError(
            what, why=why, remedy="Free space on the datastore, or let the job take another transport mode."
        )
    if unsuitable and error.errno in _UNSUITABLE:
        return StorageUnsuitableError(
            what,
            why=f"{unsuitable} ({why})",
            remedy="Correct `provider` or `folder` in proxy.toml, or leave it out.",
        )
    if error.errno in {errno.EPERM, errno.EACCES, errno.EROFS}:
        return StorageSnapshotError(
            what, why=why, remedy="The proxy has to be root there, and the file system writable."
        )
    return StorageSnapshotError(what, why=why)
