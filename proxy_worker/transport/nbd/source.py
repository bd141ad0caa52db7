"""An NBD export as a disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.program.closing import Closing
from proxy_worker.transport.nbd.connection import NbdConnection
from proxy_worker.transport.nbd.handshake import CONNECT_TIMEOUT_S, NbdConnectError, connect
from proxy_worker.transport.nbd.uri import NbdUri
from proxy_worker.transport.source import ConnectionLostError, DiskUnreadableError, require_range

MOST_CONNECTIONS: Final = 4
_FURTHER_TIMEOUT_S: Final = 3.0
_STATUS_BYTES: Final = 1 << 30
"""How much of a disk one block status asks about."""
_READS_AS_ZEROS: Final = 2


class NbdSource(Closing):
    """A `DiskSource` over one connection, or several if the server says that they see one disk."""

    def __init__(self, uri: NbdUri, *, reason: str, mode: TransportMode = TransportMode.NETWORK) -> None:
        """Connect. Raises NbdConnectError."""
        self.mode = mode
        self.mode_reason = reason
        self._uri = uri
        self._choosing = threading.Lock()
        first = NbdConnection(uri, *connect(uri, timeout_s=CONNECT_TIMEOUT_S))
        self._export = first.export
        self.size_bytes = first.export.size_bytes
        self._connections = [first]
        self._callers = [0]
        if first.export.many_connections:
            self._connect_further()
        self.parallel_reads = max(2, len(self._connections))

    def _connect_further(self) -> None:
        """More connections, as many as the server admits."""
        while len(self._connections) < MOST_CONNECTIONS:
            try:
                link, export = connect(self._uri, timeout_s=_FURTHER_TIMEOUT_S)
            except NbdConnectError:
                return  # it limits clients; the connections there are serve as well
            self._connections.append(NbdConnection(self._uri, link, export))
            self._callers.append(0)
            if export != self._export:
                self.close()
                raise NbdConnectError(f"can't read {self._uri}", why="it offers another disk at every connection")

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges that the server doesn't know to read as zeros. Raises ConnectionLostError."""
        require_range(str(self._uri), self.size_bytes, offset, length)
        end = offset + length
        start, at = offset, offset  # [start, at) may hold data and isn't reported yet
        while at < end:
            for part, flags in self._status(at, end):
                here = min(at + part, end)
                if flags & _READS_AS_ZEROS:
                    if at > start:
                        yield Extent(offset=start, length=at - start)
                    start = here
                at = here
                if at == end:
                    break
        if at > start:
            yield Extent(offset=start, length=at - start)

    def _status(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Lengths and flags from `offset` on; a server that can't tell may have data everywhere."""
        everything = [(end - offset, 0)]
        if self._export.allocation_id is None:
            return everything
        step = self._export.smallest_read
        start = offset - offset % step
        stop = min(self.size_bytes, start + _STATUS_BYTES, -(-end // step) * step)
        try:
            with self._connection() as connection:
                status = connection.block_status(start, stop - start)
        except ConnectionLostError:
            raise
        except DiskUnreadableError:
            return everything
        first, flags = status[0]
        if first <= offset - start:
            return everything
        return [(first - (offset - start), flags), *status[1:]]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the disk's `offset` on. Raises DiskUnreadableError, ConnectionLostError."""
        require_range(str(self._uri), self.size_bytes, offset, len(view))
        if not view:
            return
        step = self._export.smallest_read
        before = offset % step
        after = -(offset + len(view)) % step
        with self._connection() as connection:
            if not before and not after:
                connection.read_into(offset, view)
                return
            whole = memoryview(bytearray(before + len(view) + after))
            connection.read_into(offset - before, whole)
            view[:] = whole[before : before + len(view)]

    @contextmanager
    def _connection(self) -> Iterator[NbdConnection]:
        """The connection with the fewest callers."""
        with self._choosing:
            index = self._callers.index(min(self._callers))
            self._callers[index] += 1
        try:
            yield self._connections[index]
        finally:
            with self._choosing:
                self._callers[index] -= 1

    def close(self) -> None:
        """Close every connection. May be called again."""
        for connection in self._connections:
            connection.close()
