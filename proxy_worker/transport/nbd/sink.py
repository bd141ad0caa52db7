"""An NBD export to write to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from proxy_worker.contract.names import TransportMode
from proxy_worker.program.closing import Closing
from proxy_worker.transport.nbd.connection import NbdConnection
from proxy_worker.transport.nbd.handshake import CONNECT_TIMEOUT_S, NbdRefusedError, connect
from proxy_worker.transport.nbd.uri import NbdUri
from proxy_worker.transport.source import ConnectionLostError
from proxy_worker.transport.writing import SinkLostError, require_within

T = TypeVar("T")


class NbdSink(Closing):
    """A `DiskSink` over one connection: a disk that is locked for its writer can be opened once."""

    def __init__(self, uri: NbdUri, *, reason: str, mode: TransportMode = TransportMode.NETWORK) -> None:
        """Connect. Raises NbdConnectError, and NbdRefusedError when the server doesn't let anybody write."""
        self.mode = mode
        self.mode_reason = reason
        self._uri = uri
        self._connection = NbdConnection(uri, *connect(uri, timeout_s=CONNECT_TIMEOUT_S, to_write=True))
        self._export = self._connection.export
        self.size_bytes = self._export.size_bytes
        if self._export.read_only:
            self.close()
            raise NbdRefusedError(f"can't write {uri}", why="the server lets nobody write")

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of `view` from `offset` on. Raises TargetError."""
        require_within(str(self._uri), self.size_bytes, offset, len(view))
        self._call(lambda: self._connection.write_from(offset, view))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on, over the same connection. Raises SourceError, TargetError."""
        require_within(str(self._uri), self.size_bytes, offset, len(view))
        self._call(lambda: self._connection.read_into(offset, view))

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros. Raises TargetError."""
        require_within(str(self._uri), self.size_bytes, offset, length)
        if self._export.zeroes:
            self._call(lambda: self._connection.zero(offset, length))
            return
        zeros = memoryview(bytes(1 << 20))
        for at in range(0, length, 1 << 20):
            self.write_from(offset + at, zeros[: length - at])

    def flush(self) -> None:
        """Make durable what was written. Raises TargetError."""
        if self._export.flushes:
            self._call(self._connection.flush)

    def close(self) -> None:
        """Hang up. May be called again."""
        self._connection.close()

    def _call(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except ConnectionLostError as error:
            raise SinkLostError(error.what, why=error.why, remedy=error.remedy) from error
