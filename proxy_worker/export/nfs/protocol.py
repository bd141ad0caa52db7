"""The numbers of NFS version 3 and MOUNT, and how attributes are written. Source: RFC 1813."""

from __future__ import annotations

import errno
import os
import stat
from enum import IntEnum, IntFlag
from typing import Final

from proxy_worker.export.nfs.xdr import Writing

NFS: Final = 100003
MOUNT: Final = 100005
PORTMAP: Final = 100000
NFS_VERSION: Final = 3
MOUNT_VERSION: Final = 3
PORTMAP_VERSION: Final = 2
PORTMAP_PORT: Final = 111
TCP: Final = 6
LONGEST_HANDLE: Final = 64
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 1024
LONGEST_TRANSFER: Final = 1 << 20
"""Bytes that are read or written at once."""
AUTH_NONE, AUTH_SYS = 0, 1


class Status(IntEnum):
    """`nfsstat3`; the first few are those of MOUNT, too."""

    OK = 0
    PERM = 1
    NOENT = 2
    IO = 5
    ACCES = 13
    EXIST = 17
    NOTDIR = 20
    ISDIR = 21
    INVAL = 22
    FBIG = 27
    NOSPC = 28
    ROFS = 30
    NAMETOOLONG = 63
    NOTEMPTY = 66
    DQUOT = 69
    STALE = 70
    BADHANDLE = 10001
    NOT_SYNC = 10002
    BAD_COOKIE = 10003
    NOTSUPP = 10004
    TOOSMALL = 10005
    JUKEBOX = 10008
    """Later: the client asks again."""


_OF_ERRNO: Final = {
    errno.EPERM: Status.PERM,
    errno.ENOENT: Status.NOENT,
    errno.EACCES: Status.ACCES,
    errno.EEXIST: Status.EXIST,
    errno.ENOTDIR: Status.NOTDIR,
    errno.EISDIR: Status.ISDIR,
    errno.EINVAL: Status.INVAL,
    errno.EFBIG: Status.FBIG,
    errno.ENOSPC: Status.NOSPC,
    errno.EROFS: Status.ROFS,
    errno.ENAMETOOLONG: Status.NAMETOOLONG,
    errno.ENOTEMPTY: Status.NOTEMPTY,
    errno.EDQUOT: Status.DQUOT,
    errno.ELOOP: Status.ACCES,
}


class Stable(IntEnum):
    """How durable a write is to be, or is."""

    UNSTABLE = 0
    DATA_SYNC = 1
    FILE_SYNC = 2


class Create(IntEnum):
    """What is made of a name that exists."""

    UNCHECKED = 0
    GUARDED = 1
    EXCLUSIVE = 2


class Property(IntFlag):
    """Of a file system, as FSINFO tells them."""

    HOMOGENEOUS = 8
    CAN_SET_TIME = 16


def status_of(error: OSError) -> Status:
    """How a client hears of it."""
    return _OF_ERRNO.get(error.errno or 0, Status.IO)


def put_attributes(to: Writing, found: os.stat_result, file_system: int) -> Writing:
    """`fattr3`."""
    kind = 2 if stat.S_ISDIR(found.st_mode) else 1
    to.u32(kind, stat.S_IMODE(found.st_mode), found.st_nlink, 0, 0)
    to.u64(found.st_size, found.st_blocks * 512).u32(0, 0).u64(file_system, found.st_ino)
    for nanoseconds in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns):
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        to.u32(min(max(seconds, 0), 0xFFFFFFFF), rest)
    return to


def put_optional(to: Writing, found: os.stat_result | None, file_system: int) -> Writing:
    """`post_op_attr`."""
    return to.u32(0) if found is None else put_attributes(to.u32(1), found, file_system)
