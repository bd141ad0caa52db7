"""The flags of files that make them immutable, as `chattr` sets them: ioctl_iflags(2)."""

from __future__ import annotations

import fcntl
import struct
from enum import IntFlag
from typing import Final

_GET: Final = 0x80086601
_SET: Final = 0x40086602
_WORD: Final = struct.Struct("=q")
"""The request's number says that it is a long; what the kernel reads and writes of it is an int."""


class Flag(IntFlag):
    """What binds even the owner of a file or folder."""

    IMMUTABLE = 0x10
    """Neither written nor renamed, linked nor removed (`chattr +i`)."""
    APPEND_ONLY = 0x20
    """Of a folder: entries may be added, none removed or renamed (`chattr +a`)."""


def has(file: int, flag: Flag) -> bool:
    """Whether an open file has it; raises `OSError` where the file system knows no flags."""
    return bool(_flags(file) & flag)


def put(file: int, flag: Flag) -> None:
    """Set it; raises `PermissionError` without CAP_LINUX_IMMUTABLE or for somebody else's file."""
    fcntl.ioctl(file, _SET, _WORD.pack(_flags(file) | flag))


def take(file: int, flag: Flag) -> None:
    """Clear it; raises what `put` raises."""
    fcntl.ioctl(file, _SET, _WORD.pack(_flags(file) & ~flag.value))  # `~flag` is all other members, no more


def _flags(file: int) -> int:
    (flags,) = _WORD.unpack(fcntl.ioctl(file, _GET, _WORD.pack(0)))
    return int(flags) & 0xFFFFFFFF
