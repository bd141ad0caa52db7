"""The second phase of a connection: requests, answered in whatever order they are done."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.export.negotiation import ALLOCATION_ID, Agreement, receive
from proxy_worker.export.overlay import Overlay
from proxy_worker.export.wire import (
    CHUNK,
    CHUNK_DONE,
    CHUNK_MAGIC,
    HOLE,
    LONGEST_REQUEST,
    REQUEST,
    REQUEST_MAGIC,
    REQUEST_ONE,
    SIMPLE,
    SIMPLE_MAGIC,
    ZERO,
    ChunkType,
    Command,
)

logger = logging.getLogger(__name__)

_WRITES: Final = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})
_MOST_EXTENTS: Final = 4096
_COMMANDS: Final = {int(command): command for command in Command}
_THREADS: Final = len(os.sched_getaffinity(0)) + 2
"""Of a client: two may wait for the repository while the cores work."""


class _Room:
    """Bytes that a client's requests in flight may take; its next request waits until there is room."""

    def __init__(self) -> None:
        self._left = LONGEST_REQUEST
        self._changed = threading.Condition()

    def take(self, size_bytes: int) -> None:
        """Wait for room."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size_bytes)
            self._left -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Let others in."""
        with self._changed:
            self._left += size_bytes
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Request:
    flags: int
    command: Command
    cookie: int
    offset: int
    length: int
    payload: memoryview | None


class Transmission:
    """One client's requests, done by threads of its own: one that stops reading keeps nobody else waiting.

    Whichever thread receives a request answers it, while another receives the next: nothing is handed over.
    """

    def __init__(self, link: socket.socket, agreement: Agreement) -> None:
        self._link = link
        self._disk = agreement.disk
        self._overlay = agreement.disk if isinstance(agreement.disk, Overlay) else None
        self._structured = agreement.structured
        self._allocation = agreement.allocation
        self._room = _Room()
        self._receiving = threading.Lock()
        self._sending = threading.Lock()
        self._left = False
        self._failure: OSError | EOFError | ValueError | struct.error | None = None

    def run(self) -> None:
        """Until the client leaves. Raises OSError, EOFError and ValueError when it doesn't say so."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="export") as threads:
            for _ in range(_THREADS):
                threads.submit(self._work).add_done_callback(self._ended)
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        """Receive and answer, one request after the other."""
        while (request := self._next()) is not None:
            try:
                self._answer(request)
            finally:
                self._room.give_back(_held(request.command, request.length))

    def _next(self) -> _Request | None:
        """The client's next request; None when there won't be another."""
        with self._receiving:
            if self._left:
                return None
            try:
                request = self._receive()
            except (OSError, EOFError, ValueError, struct.error) as error:
                request, self._failure = None, error
            self._left = request is None
            return request

    def _receive(self) -> _Request | None:
        magic, flags, kind, cookie, offset, length = REQUEST.unpack(receive(self._link, REQUEST.size))
        if magic != REQUEST_MAGIC:
            raise ValueError("it sent something that is no request")
        if kind == Command.DISCONNECT:
            return None
        if kind == Command.WRITE and length > LONGEST_REQUEST:
            raise ValueError(f"it sent {length} bytes to write at once")
        size = _held(kind, length)
        self._room.take(size)
        try:
            payload = memoryview(receive(self._link, length)) if kind == Command.WRITE else None
            known = _COMMANDS.get(kind, Command.DISCONNECT)
            return _Request(flags, known, cookie, offset, length, payload)
        except BaseException:
            self._room.give_back(size)
            raise

    def _ended(self, work: Future[None]) -> None:
        """A request that got no answer ends the connection: a client would wait for it for ever."""
        error = work.exception()
        if error is not None:
            if not isinstance(error, OSError):
                logger.error("a request of an NBD client failed", exc_info=error)
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: _Request) -> None:
        refusal = self._refusal(request)
        if refusal:
            self._refuse(request, refusal, errno.errorcode[refusal])
            return
        try:
            send = self._do(request)
        except ProxyfleetError as error:
            logger.warning("%s", error)
            self._refuse(request, errno.EIO, str(error))
            return
        except OSError as error:
            number = error.errno if error.errno in {errno.ENOSPC, errno.EPERM} else errno.EIO
            logger.warning("can't %s at %d: %s", request.command.name.lower(), request.offset, error)
            self._refuse(request, number or errno.EIO, error.strerror or str(error))
            return
        with self._sending:
            send()

    def _refusal(self, request: _Request) -> int:
        """The error of a request that can't be done; 0 for one that can."""
        size = self._disk.size_bytes
        if request.command in _WRITES and self._overlay is None:
            return errno.EPERM
        if request.command == Command.DISCONNECT or (request.command == Command.READ and not request.length):
            return errno.EINVAL
        if request.command == Command.BLOCK_STATUS and not (self._allocation and request.length):
            return errno.EINVAL
        if request.command != Command.FLUSH and request.offset + request.length > size:
            return errno.ENOSPC if request.command in _WRITES else errno.EINVAL
        if request.command == Command.READ and request.length > LONGEST_REQUEST:
            return errno.EOVERFLOW
        return 0

    def _do(self, request: _Request) -> Callable[[], None]:
        """Do it; what sends the answer."""
        offset, length = request.offset, request.length
        if request.command == Command.READ:
            content = memoryview(bytearray(length))
            self._disk.read_into(offset, content)
            return lambda: self._send_content(request, content)
        if request.command == Command.BLOCK_STATUS:
            status = self._status(request)
            return lambda: self._send_chunk(request, ChunkType.BLOCK_STATUS, status)
        if self._overlay is not None and length:
            if request.payload is not None:
                self._overlay.write(offset, request.payload)
            elif request.command == Command.WRITE_ZEROES:
                self._overlay.zero(offset, length)
        return lambda: self._send_done(request)

    def _status(self, request: _Request) -> bytes:
        most = 1 if request.flags & REQUEST_ONE else _MOST_EXTENTS
        told = [struct.pack(">I", ALLOCATION_ID)]
        for extent in self._disk.extents(request.offset, request.length):
            told.append(struct.pack(">II", extent.length, (HOLE | ZERO) if extent.zero else 0))
            if len(told) > most:
                break
        return b"".join(told)

    def _send_content(self, request: _Request, content: memoryview) -> None:
        if self._structured:
            length = len(content) + 8
            head = CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, ChunkType.OFFSET_DATA, request.cookie, length)
            head += struct.pack(">Q", request.offset)
        else:
            head = SIMPLE.pack(SIMPLE_MAGIC, 0, request.cookie)
        sent = self._link.sendmsg([head, content])
        if sent < len(head) + len(content):  # a long one goes in pieces
            self._link.sendall(head[sent:])
            self._link.sendall(content[max(0, sent - len(head)) :])

    def _send_done(self, request: _Request) -> None:
        self._link.sendall(SIMPLE.pack(SIMPLE_MAGIC, 0, request.cookie))

    def _send_chunk(self, request: _Request, kind: ChunkType, data: bytes) -> None:
        self._link.sendall(CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, kind, request.cookie, len(data)) + data)

    def _refuse(self, request: _Request, number: int, why: str) -> None:
        text = why.encode()[:4096]
        with self._sending:
            if self._structured and request.command in {Command.READ, Command.BLOCK_STATUS}:
                self._send_chunk(request, ChunkType.ERROR, struct.pack(">IH", number, len(text)) + text)
            else:
                self._link.sendall(SIMPLE.pack(SIMPLE_MAGIC, number, request.cookie))


def _held(command: int, length: int) -> int:
    """How much room a request takes until it is answered."""
    return length if command in {Command.READ, Command.WRITE} and length <= LONGEST_REQUEST else 0
