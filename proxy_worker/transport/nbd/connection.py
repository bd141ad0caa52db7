"""One connection to an NBD server in its transmission phase, shared by any number of threads.

Every caller sends its own requests. Whoever gets the receiving lock receives for all: payloads go straight
into the views they were asked for. When its own requests are answered it gives the lock to the next.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy_worker.transport.nbd.handshake import Export
from proxy_worker.transport.nbd.uri import NbdUri
from proxy_worker.transport.source import ConnectionLostError, DiskUnreadableError
from proxy_worker.transport.writing import DiskUnwritableError, NoRoomError

REPLY_TIMEOUT_S: Final = 60.0
ZERO_BYTES: Final = 16 << 20
"""How much one request zeroes: a server that has to write the zeros answers in time."""
PIECE_BYTES: Final = 256 << 10
"""How much one request asks for: the fastest of the sizes measured on a Unix socket."""
WINDOW: Final = 16
"""Requests of one caller in flight; so few that they always fit the socket's buffer."""

_REQUEST: Final = struct.Struct(">IHHQQI")
_REQUEST_MAGIC: Final = 0x25609513
_SIMPLE: Final = struct.Struct(">IIQ")
_SIMPLE_MAGIC: Final = 0x67446698
_CHUNK: Final = struct.Struct(">IHHQI")
_CHUNK_MAGIC: Final = 0x668E33EF
_OFFSET: Final = struct.Struct(">Q")
_READ, _WRITE, _DISCONNECT, _FLUSH, _WRITE_ZEROES, _BLOCK_STATUS = 0, 1, 2, 3, 6, 7
_NONE, _DATA, _HOLE, _STATUS = 0, 1, 2, 5
_IS_ERROR: Final = 1 << 15
_LONGEST_MESSAGE: Final = 16 << 20
_ZEROS: Final = bytes(1 << 20)
_NO_SPACE: Final = 28
_ERRORS: Final = {
    1: "not permitted",
    5: "input/output error",
    12: "out of memory",
    22: "invalid request",
    _NO_SPACE: "no space left",
    95: "not supported",
    108: "shutting down",
}


class _ProtocolError(Exception):
    """The server sent what it may not."""


@dataclass(eq=False)
class _Request:
    """Something asked, and what has come of the answer."""

    offset: int
    length: int
    view: memoryview | None = None
    """Where a read's bytes go; None for everything else."""
    payload: memoryview | None = None
    """What a write sends."""
    filled: list[tuple[int, int]] = field(default_factory=list)
    """The ranges of `view` that have come."""
    status: list[tuple[int, int]] = field(default_factory=list)
    """Length and flags of each range of a block status."""
    error: str = ""
    error_number: int = 0
    done: bool = False

    def finish(self) -> None:
        """The server has sent everything. Raises _ProtocolError when it hasn't."""
        self.done = True
        if self.view is None or self.error:
            return
        reached = 0
        for start, end in sorted(self.filled):
            if start != reached:
                raise _ProtocolError(f"its answer to a read has a gap or an overlap at {min(start, reached)}")
            reached = end
        if reached != self.length:
            raise _ProtocolError(f"it answered {reached} of {self.length} bytes")


class NbdConnection:
    """Requests over one socket. Raises DiskUnreadableError, DiskUnwritableError and ConnectionLostError."""

    def __init__(self, uri: NbdUri, link: socket.socket, export: Export) -> None:
        self.export = export
        self._uri = uri
        self._link = link
        self._receiving = threading.RLock()
        if isinstance(link, ssl.SSLSocket):
            # An SSL object serves one thread at a time, so that sending and receiving share a lock.
            self._sending = self._receiving
            self._receive_flags = 0
            link.settimeout(REPLY_TIMEOUT_S)
        else:
            self._sending = threading.RLock()
            self._receive_flags = socket.MSG_WAITALL
            link.settimeout(None)
            timeout = struct.pack("ll", int(REPLY_TIMEOUT_S), 0)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._pending: dict[int, _Request] = {}
        self._handles = itertools.count(1)
        self._lost = ""
        self._header = memoryview(bytearray((_CHUNK if export.structured else _SIMPLE).size))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on; both must be multiples of the export's smallest read."""
        piece = min(PIECE_BYTES, self.export.longest_read)
        size = len(view)
        if size <= piece:
            self._ask(_READ, [_Request(offset, size, view)])
            return
        self._ask(
            _READ,
            [
                _Request(offset + start, min(piece, size - start), view[start : start + piece])
                for start in range(0, size, piece)
            ],
        )

    def block_status(self, offset: int, length: int) -> list[tuple[int, int]]:
        """What the server says of a range: (length in bytes, flags) of one or more ranges from `offset` on.

        They may end before or after the range that was asked for.
        """
        request = _Request(offset, length)
        self._ask(_BLOCK_STATUS, [request])
        if any(part <= 0 for part, _ in request.status) or not request.status:
            raise self._lose(offset, "its block status is empty")
        return request.status

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of `view` from `offset` on. Only for connections without structured replies."""
        size = len(view)
        self._change(
            _WRITE,
            [
                _Request(offset + start, min(PIECE_BYTES, size - start), payload=view[start : start + PIECE_BYTES])
                for start in range(0, size, PIECE_BYTES)
            ],
        )

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros, without sending them; the server may make a hole of it."""
        starts = range(0, length, ZERO_BYTES)
        self._change(_WRITE_ZEROES, [_Request(offset + start, min(ZERO_BYTES, length - start)) for start in starts])

    def flush(self) -> None:
        """Return once everything that was answered before is durable."""
        self._change(_FLUSH, [_Request(0, 0)])

    def _change(self, kind: int, requests: Sequence[_Request]) -> None:
        self._run(kind, requests)
        for request in requests:
            if request.error:
                error = NoRoomError if request.error_number == _NO_SPACE else DiskUnwritableError
                raise error(
                    f"can't write {self._uri} at {request.offset}", why=f"the server reports: {request.error}"
                )

    def close(self) -> None:
        """Say goodbye and hang up; calls of other threads fail."""
        if not self._lost:
            self._lost = "it was closed"
            if self._sending.acquire(blocking=False):
                with contextlib.suppress(OSError):  # the server may have gone already
                    self._link.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
                self._sending.release()
        self._hang_up()
        with self._receiving:
            self._link.close()

    def _run(self, kind: int, requests: Sequence[_Request]) -> None:
        """Send requests, a window of them at a time, and wait until all are answered."""
        sent = self._send(kind, requests[:WINDOW])
        with self._receiving:
            answered = 0
            while answered < len(requests):
                if requests[answered].done:
                    answered += 1
                elif sent < len(requests) and sent - answered <= WINDOW // 2:
                    sent += self._send(kind, requests[sent : answered + WINDOW])
                else:
                    self._receive(requests[answered])

    def _ask(self, kind: int, requests: Sequence[_Request]) -> None:
        self._run(kind, requests)
        for request in requests:
            if request.error:
                raise DiskUnreadableError(
                    f"can't read {self._uri} at {request.offset}",
                    offset=request.offset,
                    why=f"the server reports: {request.error}",
                )

    def _send(self, kind: int, requests: Sequence[_Request]) -> int:
        """Send requests at once; how many they were."""
        message = bytearray()
        with self._sending:
            if self._lost:
                raise self._lose(requests[0].offset, self._lost)
            for request in requests:
                handle = next(self._handles)
                self._pending[handle] = request
                message += _REQUEST.pack(_REQUEST_MAGIC, 0, kind, handle, request.offset, request.length)
                if request.payload is not None:
                    message += request.payload
            try:
                self._link.sendall(message)
            except OSError as error:
                raise self._lose(requests[0].offset, _reason(error)) from error
        return len(requests)

    def _receive(self, awaited: _Request) -> None:
        """Receive one reply or chunk of one, whosever it is. The caller holds `_receiving`."""
        if self._lost:
            raise self._lose(awaited.offset, self._lost)
        try:
            self._fill(self._header)
            if self.export.structured:
                self._receive_chunk()
            else:
                self._receive_simple()
        except (OSError, EOFError, _ProtocolError, struct.error) as error:
            raise self._lose(awaited.offset, _reason(error)) from error

    def _receive_simple(self) -> None:
        magic, error, handle = _SIMPLE.unpack(self._header)
        request = self._pending.pop(handle, None)
        if magic != _SIMPLE_MAGIC or request is None:
            raise _ProtocolError("it sent something that isn't an answer")
        if error:
            request.error, request.error_number = _ERRORS.get(error, f"error {error}"), error
        elif request.view is not None:
            self._fill(request.view)
            request.filled.append((0, request.length))
        request.finish()

    def _receive_chunk(self) -> None:
        magic, flags, kind, handle, length = _CHUNK.unpack(self._header)
        request = self._pending.get(handle)
        if magic != _CHUNK_MAGIC or request is None:
            raise _ProtocolError("it sent something that isn't an answer")
        if kind == _DATA and request.view is not None and length >= _OFFSET.size:
            (offset,) = _OFFSET.unpack(self._take(_OFFSET.size))
            start, end = self._range(request, offset, length - _OFFSET.size)
            self._fill(request.view[start:end])
            request.filled.append((start, end))
        elif length > _LONGEST_MESSAGE:
            raise _ProtocolError(f"it announced a message of {length} bytes")
        else:
            self._take_message(request, kind, self._take(length))
        if flags & 1:
            del self._pending[handle]
            request.finish()

    def _take_message(self, request: _Request, kind: int, message: bytes) -> None:
        """A chunk that isn't data."""
        if kind == _HOLE and request.view is not None:
            start, end = self._range(request, *struct.unpack(">QI", message))
            for at in range(start, end, len(_ZEROS)):
                part = min(len(_ZEROS), end - at)
                request.view[at : at + part] = _ZEROS[:part]
            request.filled.append((start, end))
        elif kind == _STATUS and request.view is None:
            (context,) = struct.unpack_from(">I", message)
            if context == self.export.allocation_id:
                request.status += struct.iter_unpack(">II", message[4:])
        elif kind & _IS_ERROR:
            code, length = struct.unpack_from(">IH", message)
            words = message[6 : 6 + length].decode("utf-8", "replace").strip()
            request.error = words or _ERRORS.get(code, f"error {code}")
        elif kind != _NONE:
            raise _ProtocolError(f"it answered with a chunk of kind {kind}")

    @staticmethod
    def _range(request: _Request, offset: int, length: int) -> tuple[int, int]:
        start = offset - request.offset
        if start < 0 or length == 0 or start + length > request.length:
            raise _ProtocolError("it sent data that weren't asked for")
        return start, start + length

    def _take(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        """Receive `view` whole."""
        while view:
            count = self._link.recv_into(view, 0, self._receive_flags)
            if count == 0:
                raise EOFError
            view = view[count:]

    def _lose(self, offset: int, why: str) -> ConnectionLostError:
        """Give the connection up, and the error that says so."""
        self._lost = self._lost or why
        self._hang_up()
        return ConnectionLostError(f"lost {self._uri} at {offset}", offset=offset, why=why)

    def _hang_up(self) -> None:
        """Make whoever waits for the server stop waiting."""
        with contextlib.suppress(OSError):  # it may be down already
            socket.socket.shutdown(self._link, socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the server closed the connection"
    if isinstance(error, BlockingIOError | TimeoutError):
        return f"the server didn't answer for {REPLY_TIMEOUT_S:.0f} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
