"""XDR, the encoding of RPC: four-byte units, big-endian, lengths in front. Source: RFC 4506."""

from __future__ import annotations

import struct
from typing import Final

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


class XdrError(ValueError):
    """Arguments end too early, or are longer than they may be."""


class Reading:
    """Takes values off the front of a message."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def fixed(self, length: int) -> memoryview:
        """So many bytes, and what pads them."""
        stop = self._at + length
        if stop > len(self._data):
            raise XdrError(f"it ends {stop - len(self._data)} bytes too early")
        found = self._data[self._at : stop]
        self._at = stop + -length % 4
        return found

    def u32(self) -> int:
        """An unsigned integer of four bytes."""
        return int(_U32.unpack(self.fixed(4))[0])

    def u64(self) -> int:
        """An unsigned integer of eight bytes."""
        return int(_U64.unpack(self.fixed(8))[0])

    def opaque(self, most: int) -> memoryview:
        """Bytes with their length in front, at most `most`."""
        length = self.u32()
        if length > most:
            raise XdrError(f"it has {length} bytes where {most} are the most")
        return self.fixed(length)


class Writing:
    """Puts values after each other."""

    def __init__(self) -> None:
        self._data = bytearray()

    def u32(self, *values: int) -> Writing:
        """Unsigned integers of four bytes."""
        for value in values:
            self._data += _U32.pack(value)
        return self

    def u64(self, *values: int) -> Writing:
        """Unsigned integers of eight bytes."""
        for value in values:
            self._data += _U64.pack(value)
        return self

    def fixed(self, data: bytes | bytearray | memoryview) -> Writing:
        """Bytes whose length both sides know."""
        self._data += data
        self._data += bytes(-len(data) % 4)
        return self

    def opaque(self, data: bytes | bytearray | memoryview) -> Writing:
        """Bytes with their length in front."""
        return self.u32(len(data)).fixed(data)

    def done(self) -> bytes:
        """The message."""
        return bytes(self._data)
