"""An NFS client that says exactly what it is told to, for what libnfs and QEMU don't ask."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from proxy_worker.export.nfs.protocol import MOUNT, NFS, Status
from proxy_worker.export.nfs.xdr import Reading, Writing


class Client:
    """A connection, and the handle of what it has mounted."""

    def __init__(self, port: int, share: str | None = None) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), 60)
        self._ids = itertools.count(1)
        self.root = b""
        if share is not None:
            answer = self.ask(MOUNT, 1, Writing().opaque(f"/{share}".encode()))
            assert answer.u32() == Status.OK
            self.root = bytes(answer.opaque(64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.close()

    def ask(self, program: int, procedure: int, arguments: Writing, *, version: int = 3) -> Reading:
        """What a procedure answers; an answer that it wasn't accepted is a failure."""
        accepted, answer = self.call(program, procedure, arguments, version=version)
        assert accepted == 0
        return answer

    def call(self, program: int, procedure: int, arguments: Writing, *, version: int = 3) -> tuple[int, Reading]:
        """Whether it was accepted, and the rest of the answer."""
        xid = next(self._ids)
        call = Writing().u32(xid, 0, 2, program, version, procedure, 1).opaque(bytes(20)).u32(0, 0).done()
        self.send(call + arguments.done())
        (header,) = struct.unpack(">I", self._receive(4))
        answer = Reading(memoryview(self._receive(header & 0x7FFFFFFF)))
        assert [answer.u32() for _ in range(3)] == [xid, 1, 0]
        answer.u32()
        answer.opaque(400)
        return answer.u32(), answer

    def nfs(self, procedure: int, arguments: Writing) -> tuple[Status, Reading]:
        """The status that an NFS procedure answers with, and the rest."""
        answer = self.ask(NFS, procedure, arguments)
        return Status(answer.u32()), answer

    def send(self, record: bytes) -> None:
        """A record in two fragments."""
        half = len(record) // 2
        parts: Sequence[tuple[int, bytes]] = ((half, record[:half]), (len(record) - half | 1 << 31, record[half:]))
        self.link.sendall(b"".join(struct.pack(">I", header) + part for header, part in parts))

    def look_up(self, name: str, folder: bytes | None = None) -> bytes:
        """The handle of a file that is there."""
        status, answer = self.nfs(3, self.place(name, folder))
        assert status is Status.OK
        return bytes(answer.opaque(64))

    def place(self, name: str, folder: bytes | None = None) -> Writing:
        """A name in a folder, as requests say it."""
        return Writing().opaque(folder or self.root).opaque(name.encode())

    def write(self, handle: bytes, offset: int, data: bytes, *, stable: int = 2) -> tuple[Status, bytes]:
        """Write; the server's verifier besides the status."""
        arguments = Writing().opaque(handle).u64(offset).u32(len(data), stable).opaque(data)
        status, answer = self.nfs(7, arguments)
        if status is not Status.OK:
            return status, b""
        assert answer.u32() == 0
        if answer.u32():
            answer.fixed(84)
        assert answer.u32() == len(data)
        assert answer.u32() == stable
        return status, bytes(answer.fixed(8))

    def read(self, handle: bytes, offset: int, length: int) -> bytes:
        """Read."""
        status, answer = self.nfs(6, Writing().opaque(handle).u64(offset).u32(length))
        assert status is Status.OK
        if answer.u32():
            answer.fixed(84)
        answer.u32(), answer.u32()
        return bytes(answer.opaque(1 << 20))

    def _receive(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            piece = self.link.recv(length - len(received))
            if not piece:
                raise EOFError
            received += piece
        return received
