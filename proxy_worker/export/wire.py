"""The numbers of the NBD protocol (fixed newstyle), as a server needs them.

Source: "The NBD protocol" of the NetworkBlockDevice project.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

GREETING: Final = b"NBDMAGICIHAVEOPT"
OPTION_MAGIC: Final = b"IHAVEOPT"
OPTION: Final = struct.Struct(">8sII")
OPTION_REPLY: Final = struct.Struct(">QIII")
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
REQUEST: Final = struct.Struct(">IHHQQI")
REQUEST_MAGIC: Final = 0x25609513
SIMPLE: Final = struct.Struct(">IIQ")
SIMPLE_MAGIC: Final = 0x67446698
CHUNK: Final = struct.Struct(">IHHQI")
CHUNK_MAGIC: Final = 0x668E33EF
LONGEST_OPTION: Final = 1 << 16
LONGEST_REQUEST: Final = 32 << 20
"""Bytes; what every client may assume."""
ALLOCATION: Final = b"base:allocation"
FIXED_NEWSTYLE: Final = 1
NO_ZEROES: Final = 2


class Option(IntEnum):
    """What a client asks before transmission."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionAnswer(IntEnum):
    """How a server answers it."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    UNSUPPORTED = 0x80000001
    INVALID = 0x80000003
    UNKNOWN = 0x80000006
    TOO_BIG = 0x80000009


class Info(IntEnum):
    """What an export is told about."""

    EXPORT = 0
    BLOCK_SIZE = 3


class ExportFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    CAN_MULTI_CONN = 1 << 8


class Command(IntEnum):
    """What a client asks in transmission."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


REQUEST_ONE: Final = 1 << 3
"""The flag of a block status that asks for one extent."""


class ChunkType(IntEnum):
    """Parts of a structured reply."""

    NONE = 0
    OFFSET_DATA = 1
    BLOCK_STATUS = 5
    ERROR = 0x8001


CHUNK_DONE: Final = 1
HOLE: Final = 1 << 0
ZERO: Final = 1 << 1
