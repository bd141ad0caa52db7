"""The journal of disks that this proxy hot-adds: one durable file per disk, there before the disk is attached.

A file is locked for as long as its disk is in use, by the process that uses it. The kernel drops the lock when
the process ends, however it does: an entry that can be locked is one that a dead process has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from proxy_worker.contract.errors import ConfigurationError, ConflictError, SourceError
from proxy_worker.contract.subjects import Frozen, VcenterReference
from proxy_worker.program.durable import sync_folder

FOLDER: Final = "hot-add"
_SUFFIX: Final = ".json"
_POLL_S: Final = 0.05


class AttachmentJournalError(ConfigurationError):
    """The journal of hot-added disks can't be kept or read."""


class DiskInUseError(ConflictError):
    """This proxy has a disk attached already, for another task."""

    retryable = True


class AttachingBusyError(SourceError):
    """Other processes of this proxy attach and detach disks all the time."""


class Attachment(Frozen):
    """A disk that is attached to the proxy's VM, is about to be, or was."""

    vcenter: VcenterReference
    proxy_vm: str
    """The VM's managed object id."""
    path: str
    """`[datastore] folder/disk.vmdk`."""
    uuid: str


class Entry:
    """An attachment in the journal, locked by this process until it is forgotten or left."""

    def __init__(self, attachment: Attachment, path: Path, fd: int) -> None:
        self.attachment = attachment
        self._path = path
        self._fd = fd

    def forget(self) -> None:
        """Remove it: the disk is detached. Raises AttachmentJournalError."""
        try:
            with _named(self._path.parent):
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)
        finally:
            self.leave()

    def leave(self) -> None:
        """Let whoever comes next take it over. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class AttachmentJournal:
    """The entries in one folder, which belongs to one proxy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def empty(self) -> bool:
        """Whether no disk is in it, of the living or the dead."""
        return not self._files()

    @contextlib.contextmanager
    def attaching(self, timeout_s: float) -> Iterator[None]:
        """Be the only process of this proxy that attaches disks. Raises AttachingBusyError."""
        with _named(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + timeout_s
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise AttachingBusyError(
                        "hot-adding a disk", why=f"other tasks of this proxy attach theirs for {timeout_s:g} s"
                    )
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(lock)

    def write(self, attachment: Attachment) -> Entry:
        """Note a disk, durably; call it while `attaching`. Raises DiskInUseError, AttachmentJournalError."""
        named = f"{attachment.vcenter.host} {attachment.vcenter.port} {attachment.path}"
        path = self._folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}{_SUFFIX}"
        if path.exists():
            raise DiskInUseError(
                f"{attachment.path} can't be hot-added",
                why="another task of this proxy has it attached, or left it so",
                remedy="It is tried again, and detached first if nobody uses it.",
            )
        fresh = path.with_suffix(".new")
        with _named(self._folder):
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.write(fd, attachment.model_dump_json().encode())
                os.fsync(fd)
                fresh.rename(path)
                sync_folder(self._folder)
            except BaseException:
                os.close(fd)
                raise
        return Entry(attachment, path, fd)

    def all(self) -> tuple[Attachment, ...]:
        """Every disk in the journal. Raises AttachmentJournalError."""
        found = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                found.append(_parse(path, path.read_bytes()))
        return tuple(found)

    def left_behind(self) -> Iterator[Entry]:
        """What dead processes have left, each locked until it is forgotten, left, or the next is asked for.

        Raises AttachmentJournalError.
        """
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                # Unlinked meanwhile: it was forgotten by whoever held it.
                if _locked(fd) and os.fstat(fd).st_nlink:
                    with Entry(_read(path, fd), path, fd) as entry:
                        yield entry
                else:
                    os.close(fd)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))


def _read(path: Path, fd: int) -> Attachment:
    try:
        return _parse(path, os.pread(fd, os.fstat(fd).st_size, 0))
    except BaseException:
        os.close(fd)
        raise


def _parse(path: Path, content: bytes) -> Attachment:
    try:
        return Attachment.model_validate_json(content)
    except ValidationError as error:
        raise AttachmentJournalError(
            f"{path}, which says what disk was hot-added to this proxy, can't be understood",
            why="it is damaged, or of another version",
            remedy="See in vCenter that no foreign disk hangs at the proxy's VM, then delete the file.",
        ) from error


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AttachmentJournalError(
            f"can't keep the journal of hot-added disks in {folder}",
            why=error.strerror or str(error),
            remedy="Without it no disk is hot-added: make the proxy's state_dir writable.",
        ) from error
