"""What a disk is restored to: a new file that gets its name when it is complete, or a block device.

Blocks of zeros are left out of a file, which is sparse then, and written to a device, which may hold anything.
Data goes past the page cache where it can: a restored disk would push out everything else, and cost the kernel
more than decompressing it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

from proxy_worker.contract.errors import ConflictError, TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.program.closing import Closing
from proxy_worker.program.durable import give_new_name, sync_folder

PIECE_BYTES: Final = 128 << 10
"""Larger writes cost the kernel up to twice as much: measured on ext4, between 64 KiB and 1 MiB."""


ALIGNMENT: Final = mmap.PAGESIZE
"""Of offsets, lengths and memory for direct I/O: at least what any disk asks for."""
_ZEROS: Final = memoryview(mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).toreadonly()


class RestoreTarget(Protocol):
    """What a disk is written to. `write` and `zero` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def mode(self) -> TransportMode:
        """How it is written."""

    @property
    def mode_reason(self) -> str:
        """Why so, in one line."""

    @property
    def writes_zeros(self) -> bool:
        """Whether ranges of zeros have to be written, since it may hold anything there."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`, or raise TargetError."""

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros, or raise TargetError."""

    def finish(self) -> None:
        """Make it durable, and complete."""

    def full(self, missing_bytes: int) -> TargetError:
        """The error for a target that has run out of room with so many bytes still to write."""


class TargetExistsError(ConflictError):
    """There is something at the path already."""


class TargetBusyError(ConflictError):
    """Another restore writes to the same place."""


class TargetFullError(TargetError):
    """There is not enough room for the disk."""


class Target(Closing):
    """A file or block device of this machine. Left early, it removes what it made."""

    mode = TransportMode.DIRECT_STORAGE
    mode_reason = "the proxy writes the target itself"

    def __init__(self, path: Path, size_bytes: int, *, overwrite: bool) -> None:
        """Raises `TargetError` and `ConflictError`."""
        self.path = path
        self.size_bytes = size_bytes
        self._overwrite = overwrite
        self._descriptor = -1
        self._finished = False
        self._turn = threading.Lock()
        self._direct = -1
        try:
            self.is_device = path.exists() and stat.S_ISBLK(path.stat().st_mode)
            self._refuse_what_exists()
            self._written_path = path if self.is_device else path.with_name(path.name + ".partial")
            self._open()
            with contextlib.suppress(OSError):  # some filesystems have no direct I/O
                flags = os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._direct = os.open(self._written_path, flags)
        except OSError as error:
            self._release()
            raise self._failed(error) from error
        except BaseException:
            self._release()
            raise

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def writes_zeros(self) -> bool:
        """A file is made sparse; a device may hold anything."""
        return self.is_device

    def zero(self, offset: int, length: int) -> None:
        """Write zeros to a device; a file has them already."""
        for at in range(offset, offset + length if self.is_device else offset, len(_ZEROS)):
            self.write(at, _ZEROS[: offset + length - at])

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`; past the page cache where offset, length and memory are page-aligned."""
        try:
            if (offset | len(data)) % ALIGNMENT == 0 and self._write_direct(offset, data):
                return
            with self._turn:  # in the page cache, writers of one file exclude each other anyhow, spinning
                for at in range(0, len(data), PIECE_BYTES):
                    _write_all(self._descriptor, data[at : at + PIECE_BYTES], offset + at)
        except OSError as error:
            raise self._failed(error) from error

    def _write_direct(self, offset: int, data: memoryview) -> bool:
        """Whether the filesystem took the data that way."""
        if self._direct < 0:
            return False
        try:
            _write_all(self._direct, data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def finish(self) -> None:
        """Make it durable and give it its name."""
        try:
            os.fsync(self._descriptor)
            if not self.is_device:
                size = os.fstat(self._descriptor).st_size
                if size != self.size_bytes:
                    raise TargetError(f"{self.path} can't be restored to", why=f"it became {size} bytes long")
                self._rename()
            self._finished = True
        except OSError as error:
            raise self._failed(error) from error

    def full(self, missing_bytes: int) -> TargetFullError:
        """The error for a target that has run out of room with so many bytes still to write."""
        return TargetFullError(
            f"{self.path} can't be restored to",
            why=f"no space is left there, {missing_bytes} bytes short of what the disk still needs",
            remedy="Free that much, or restore to another place.",
        )

    def close(self) -> None:
        """Close it; what is incomplete is removed. Idempotent."""
        if self._descriptor < 0:
            return
        if not self._finished and not self.is_device:
            self._written_path.unlink(missing_ok=True)
        self._release()

    def _refuse_what_exists(self) -> None:
        if self.path.is_dir():
            raise TargetError(
                f"{self.path} can't be restored to", why="it is a folder", remedy="Name a file in it."
            )
        if self.path.exists() and not self._overwrite:
            raise TargetExistsError(
                f"{self.path} can't be restored to",
                why="it exists",
                remedy="Choose another path, or say --overwrite to replace what is there.",
            )

    def _open(self) -> None:
        if self.is_device:
            self._descriptor = os.open(self._written_path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            available = os.lseek(self._descriptor, 0, os.SEEK_END)
            if available < self.size_bytes:
                raise TargetFullError(
                    f"{self.path} can't be restored to",
                    why=f"the device has {available} bytes, {self.size_bytes - available} less than the disk",
                    remedy="Choose a larger device.",
                )
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._written_path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._busy() from error
        if not self._owns_name():  # another restore has just given that file its final name
            raise self._busy()
        os.ftruncate(self._descriptor, 0)  # what an interrupted restore has left
        os.ftruncate(self._descriptor, self.size_bytes)

    def _owns_name(self) -> bool:
        """Whether the file that is open is the one that has the name."""
        try:
            named = self._written_path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._descriptor))

    def _busy(self) -> TargetBusyError:
        return TargetBusyError(
            f"{self.path} can't be restored to",
            why=f"another restore is writing {self._written_path.name}",
            remedy="Wait for it, or choose another path.",
        )

    def _release(self) -> None:
        """Close what is open."""
        for descriptor in (self._direct, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._direct = self._descriptor = -1

    def _rename(self) -> None:
        if self._overwrite:
            self._written_path.replace(self.path)
        else:
            try:
                give_new_name(self._written_path, self.path)
            except FileExistsError as error:
                raise TargetExistsError(
                    f"{self.path} can't be restored to", why="it has appeared meanwhile"
                ) from error
        sync_folder(self.path.parent)

    def _failed(self, error: OSError) -> TargetError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return self.full(0)
        if not self.path.parent.is_dir():
            return TargetError(
                f"{self.path} can't be restored to",
                why=f"there is no folder {self.path.parent}",
                remedy="Make it, or mount what belongs there.",
            )
        return TargetError(f"{self.path} can't be restored to", why=error.strerror or str(error))


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
