"""A flat VMDK or raw image that is written in place, where its datastore is mounted here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from typing import Final

from proxy_worker.contract.errors import ConflictError, TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.program.closing import Closing
from proxy_worker.transport.image import DiskImage
from proxy_worker.transport.vmdk import SECTOR_BYTES, ExtentKind
from proxy_worker.transport.writing import DiskUnwritableError, NoRoomError, require_within

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_ZEROS: Final = bytes(1 << 20)


class NotFlatError(TargetError):
    """A disk isn't one flat file, so that it can't be written in place."""


class DiskHeldError(ConflictError):
    """Another restore writes the same disk."""

    retryable = True


class DirectSink(Closing):
    """A `DiskSink` over the one file of a flat disk."""

    mode = TransportMode.DIRECT_STORAGE

    def __init__(self, image: DiskImage, *, reason: str) -> None:
        """Take over `image`. Raises NotFlatError, DiskHeldError or DiskUnwritableError, having closed it."""
        self.mode_reason = reason
        self.size_bytes = image.size_bytes
        self._name = image.path
        self._image = image
        self._descriptor = -1
        self._punches = True
        try:
            path, self._shift = _only_file(image)
            self._open(path)
        except BaseException:
            self.close()
            raise

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of `view` from `offset` on. Raises TargetError."""
        require_within(self._name, self.size_bytes, offset, len(view))
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._shift + offset + done)
        except OSError as error:
            raise self._failed(offset + done, error) from error

    def zero(self, offset: int, length: int) -> None:
        """Make a hole of a range, or write zeros where the filesystem has no holes. Raises TargetError."""
        require_within(self._name, self.size_bytes, offset, length)
        if self._punches and length:
            try:
                _punch(self._descriptor, self._shift + offset, length)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
                    raise self._failed(offset, error) from error
                self._punches = False
            else:
                return
        for at in range(0, length, len(_ZEROS)):
            self.write_from(offset + at, memoryview(_ZEROS)[: length - at])

    def flush(self) -> None:
        """Make durable what was written. Raises TargetError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(0, error) from error

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._image.close()

    def _open(self, descriptor: int) -> None:
        try:
            # What was opened to read, whatever has its name by now.
            self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed(0, error) from error
        with contextlib.suppress(OSError):  # an export without locks: the lease alone keeps others away
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DiskHeldError(
                    f"{self._name} can't be written", why="another restore is writing it", remedy="Wait for it."
                ) from error

    def _failed(self, offset: int, error: OSError) -> DiskUnwritableError:
        kind = NoRoomError if error.errno in {errno.ENOSPC, errno.EDQUOT} else DiskUnwritableError
        return kind(f"can't write {self._name} at {offset}", why=error.strerror or str(error))


def _only_file(image: DiskImage) -> tuple[int, int]:
    """The file that holds the disk's bytes, and where in it they begin."""
    if image.raw is not None:
        return image.raw.fd, 0
    layer = image.layers[0]
    extents, file = layer.descriptor.extents, layer.files[0]
    if (
        len(image.layers) != 1
        or len(extents) != 1
        or extents[0].kind not in {ExtentKind.FLAT, ExtentKind.VMFS}
        or file is None
    ):
        raise NotFlatError(f"{image.path} can't be written in place", why=f"it is a {image.description} disk")
    return file.fd, extents[0].offset_sectors * SECTOR_BYTES


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Deallocate a range of a file (fallocate(2), which Python offers without its modes)."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate64(
        descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_longlong(offset), ctypes.c_longlong(length)
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
