"""The first phase of a connection: which export, and what both sides speak."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from proxy_worker.export.disk import Disk
from proxy_worker.export.overlay import Overlay
from proxy_worker.export.wire import (
    ALLOCATION,
    FIXED_NEWSTYLE,
    GREETING,
    LONGEST_OPTION,
    LONGEST_REQUEST,
    NO_ZEROES,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    ExportFlag,
    Info,
    Option,
    OptionAnswer,
)

ALLOCATION_ID = 1
"""The number under which `base:allocation` is told."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a connection is for."""

    disk: Disk
    structured: bool
    allocation: bool
    """Whether the client may ask what is allocated."""


def receive(link: socket.socket, length: int) -> bytearray:
    """So many bytes, whole; raises EOFError when the client has gone."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = link.recv_into(view)
        if not got:
            raise EOFError("the client has closed the connection")
        view = view[got:]
    return data


def negotiate(link: socket.socket, exports: Mapping[str, Disk]) -> Agreement | None:
    """Agree with a client; None when it leaves. Raises OSError, EOFError, ValueError when it talks nonsense."""
    return _Negotiation(link, exports).run()


class _Negotiation:
    def __init__(self, link: socket.socket, exports: Mapping[str, Disk]) -> None:
        self._link = link
        self._exports = exports
        self._structured = False
        self._allocation_of: str | None = None

    def run(self) -> Agreement | None:
        self._link.sendall(GREETING + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        (flags,) = struct.unpack(">I", receive(self._link, 4))
        if not flags & FIXED_NEWSTYLE or flags & ~(FIXED_NEWSTYLE | NO_ZEROES):
            raise ValueError(f"it sent unknown flags: {flags:#x}")
        while True:
            magic, option, length = OPTION.unpack(receive(self._link, OPTION.size))
            if magic != OPTION_MAGIC:
                raise ValueError("it doesn't speak the newstyle protocol")
            if length > LONGEST_OPTION:
                raise ValueError(f"it sent an option of {length} bytes")
            data = bytes(receive(self._link, length))
            if option == Option.ABORT:
                self._answer(option, OptionAnswer.ACK)
                return None
            if option == Option.EXPORT_NAME:
                return self._begin_at_once(data, padded=not flags & NO_ZEROES)
            chosen = self._handle(option, data)
            if chosen is not None:
                return self._agreed(chosen)

    def _handle(self, option: int, data: bytes) -> str | None:
        """Answer an option; the name of the export when transmission begins."""
        if option == Option.LIST and not data:
            for name in self._exports:
                encoded = name.encode()
                self._answer(option, OptionAnswer.SERVER, struct.pack(">I", len(encoded)) + encoded)
            self._answer(option, OptionAnswer.ACK)
        elif option == Option.STRUCTURED_REPLY and not data:
            self._structured = True
            self._answer(option, OptionAnswer.ACK)
        elif option in {Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT}:
            self._tell_contexts(option, data)
        elif option in {Option.INFO, Option.GO}:
            return self._tell_export(option, data)
        else:
            known = option in {Option.LIST, Option.STRUCTURED_REPLY}
            self._answer(option, OptionAnswer.INVALID if known else OptionAnswer.UNSUPPORTED)
        return None

    def _tell_export(self, option: int, data: bytes) -> str | None:
        name, _ = _text(data)
        disk = self._find(name)
        if disk is None:
            self._answer(option, OptionAnswer.UNKNOWN, b"there is no such disk; ask for a list")
            return None
        self._answer(option, OptionAnswer.INFO, struct.pack(">HQH", Info.EXPORT, disk.size_bytes, _flags(disk)))
        sizes = (1, max(disk.block_size, 512), LONGEST_REQUEST)
        self._answer(option, OptionAnswer.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, *sizes))
        self._answer(option, OptionAnswer.ACK)
        return name if option == Option.GO else None

    def _tell_contexts(self, option: int, data: bytes) -> None:
        name, rest = _text(data)
        (count,) = struct.unpack_from(">I", rest)
        queries, at = [], 4
        for _ in range(count):
            query, left = _text(rest[at:])
            at = len(rest) - len(left)
            queries.append(query.encode())
        if self._find(name) is None:
            self._answer(option, OptionAnswer.UNKNOWN)
            return
        if option == Option.SET_META_CONTEXT and not self._structured:
            self._answer(option, OptionAnswer.INVALID, b"structured replies come first")
            return
        listing = option == Option.LIST_META_CONTEXT
        wanted = ALLOCATION in queries or (listing and (not queries or b"base:" in queries))
        if wanted:
            number = 0 if listing else ALLOCATION_ID
            self._answer(option, OptionAnswer.META_CONTEXT, struct.pack(">I", number) + ALLOCATION)
        if not listing:
            self._allocation_of = name if wanted else None
        self._answer(option, OptionAnswer.ACK)

    def _begin_at_once(self, data: bytes, *, padded: bool) -> Agreement | None:
        """The oldest way to choose an export, which has no way to refuse."""
        name = data.decode(errors="replace")
        disk = self._find(name)
        if disk is None:
            return None
        self._link.sendall(struct.pack(">QH", disk.size_bytes, _flags(disk)) + bytes(124 if padded else 0))
        return self._agreed(name)

    def _agreed(self, name: str) -> Agreement:
        disk = self._find(name)
        if disk is None:
            raise ValueError("its export has gone")
        return Agreement(disk, self._structured, self._allocation_of == name)

    def _find(self, name: str) -> Disk | None:
        """The disk of that name; without a name, the first."""
        return self._exports.get(name) if name else next(iter(self._exports.values()), None)

    def _answer(self, option: int, kind: OptionAnswer, data: bytes = b"") -> None:
        self._link.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data)


def _flags(disk: Disk) -> int:
    flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.CAN_MULTI_CONN
    if not isinstance(disk, Overlay):
        return flags | ExportFlag.READ_ONLY
    return flags | ExportFlag.SEND_FUA | ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES


def _text(data: bytes) -> tuple[str, bytes]:
    """A text with its length in front, and what follows it."""
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise ValueError("a name is longer than what it came in")
    return data[4 : 4 + length].decode(), data[4 + length :]
