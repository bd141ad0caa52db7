"""Copies of a replica's files: sharing their blocks where the file system can, else sparse ones."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # linux/fs.h
_PIECE_BYTES: Final = 1 << 20
_PROBE_BYTES: Final = 4096
_CANNOT_SHARE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})


def can_share(folder: Path) -> bool:
    """Whether files in a folder can share their blocks, as tried out there. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(bytes(_PROBE_BYTES))
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            return False
        return True


def copy_file(source: int, target: int, go_on: Callable[[], None]) -> bool:
    """Make an empty file a copy of another, durably; `go_on`, which may raise, is called between pieces.

    Its owner and permissions are those of the other, as far as this process may set them. Returns whether it shares
    its blocks. Raises OSError.
    """
    status = os.fstat(source)
    with contextlib.suppress(PermissionError):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        _copy_sparse(source, target, go_on)
        os.fsync(target)
        return False
    os.fsync(target)
    return True


def _copy_sparse(source: int, target: int, go_on: Callable[[], None]) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            data = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        at = os.lseek(source, data, os.SEEK_HOLE)
        while data < at:
            go_on()
            data += _copy_piece(source, target, data, min(_PIECE_BYTES, at - data))


def _copy_piece(source: int, target: int, offset: int, length: int) -> int:
    with contextlib.suppress(OSError):
        done = os.copy_file_range(source, target, length, offset, offset)
        if done:
            return done
    piece = os.pread(source, length, offset)
    if not piece:
        raise OSError(errno.EIO, "a file became shorter while it was copied")
    return os.pwrite(target, piece, offset)
