"""The server: connections by TCP, records of calls in and of answers out, in whatever order they are done."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy_worker.export.negotiation import receive
from proxy_worker.export.nfs.files import Files
from proxy_worker.export.nfs.mounting import mount_program, portmap_program
from proxy_worker.export.nfs.protocol import LONGEST_TRANSFER, PORTMAP_PORT
from proxy_worker.export.nfs.registering import register, unregister
from proxy_worker.export.nfs.room import Place, Room
from proxy_worker.export.nfs.rpc import Program, answer, broken
from proxy_worker.export.nfs.share import Shares
from proxy_worker.program.listening import ListenError

logger = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MOST_CLIENTS: Final = 64
_THREADS: Final = len(os.sched_getaffinity(0)) + 4
"""Of a client: some may wait for the repository, or for a disk to flush, while the cores work."""
_LAST: Final = 1 << 31
_LONGEST_RECORD: Final = LONGEST_TRANSFER + (64 << 10)
_HEADER: Final = struct.Struct(">I")


class NfsServer:
    """Serves shares to clients of some networks, until it is closed."""

    def __init__(self, shares: Shares, listener: socket.socket, clients: Sequence[Network]) -> None:
        self._door = _Door(listener, (Files(shares).program(), mount_program(shares)), clients)
        self._portmapper: _Door | None = None
        self._registered = False
        self.port: int = listener.getsockname()[1]

    def map_port(self, host: str) -> None:
        """Be found by the portmapper, which ESXi asks: this machine's, or one of our own. Raises `ListenError`."""
        try:
            listener = listen(host, PORTMAP_PORT)
        except ListenError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
            register(self.port)
            self._registered = True
            return
        self._portmapper = _Door(listener, (portmap_program(self.port),), self._door.clients)
        self._portmapper.open()

    def start(self) -> None:
        """Accept clients in a thread."""
        self._door.open()

    def close(self) -> None:
        """Send everybody away, and wait until nothing is read or written any more."""
        if self._registered:
            with contextlib.suppress(ListenError):
                unregister()
            self._registered = False
        for door in filter(None, (self._portmapper, self._door)):
            door.close()


class _Door:
    """A port, and the programs behind it."""

    def __init__(self, listener: socket.socket, programs: Sequence[Program], clients: Sequence[Network]) -> None:
        self._listener = listener
        self._programs = tuple(programs)
        self.clients = tuple(clients)
        self._room = Room()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def open(self) -> None:
        thread = threading.Thread(target=self._accept, name="nfs-accept", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            clients = list(self._open)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed or len(self._open) >= MOST_CLIENTS or not self._may(address[0]):
                    client.close()
                    continue
                self._open.add(client)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                thread = threading.Thread(target=self._serve, args=(client,), name="nfs-client", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _may(self, address: str) -> bool:
        found = ipaddress.ip_address(address)
        allowed = any(found in network for network in self.clients)
        if not allowed:
            logger.warning("a client at %s was sent away: it isn't among those that may mount", address)
        return allowed

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _Conversation(client, self._programs, Place(self._room)).run()
        except (OSError, EOFError, ValueError) as error:
            logger.debug("a client has gone: %s", error)
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()


class _Conversation:
    """One connection."""

    def __init__(self, link: socket.socket, programs: Sequence[Program], place: Place) -> None:
        self._link = link
        self._programs = programs
        self._sending = threading.Lock()
        self._place = place

    def run(self) -> None:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="nfs") as threads:
            while True:
                self._place.enter()
                try:
                    record = self._record()
                except (OSError, EOFError, ValueError):
                    self._place.leave()
                    raise
                threads.submit(self._work, record)
                del record  # it isn't kept for as long as the next one doesn't come

    def _record(self) -> bytearray:
        """The next message, put together from its fragments."""
        record, last = bytearray(), False
        while not last:
            (header,) = _HEADER.unpack(receive(self._link, _HEADER.size))
            last, length = bool(header & _LAST), header & ~_LAST
            if len(record) + length > _LONGEST_RECORD:
                raise ValueError(f"it sent a message of {len(record) + length} bytes")
            record += receive(self._link, length)
        return record

    def _work(self, record: bytearray) -> None:
        try:
            told = self._answer(memoryview(record))
            if told is not None:
                with self._sending:
                    self._link.sendall(_HEADER.pack(_LAST | len(told)) + told)
        except OSError as error:
            logger.debug("an answer can't be sent: %s", error)
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)
        finally:
            self._place.leave()

    def _answer(self, record: memoryview) -> bytes | None:
        try:
            return answer(record, self._programs)
        except Exception:
            # A defect must neither end the thread unheard, nor have a client ask again and again.
            logger.exception("a client's request")
            return broken(record)


def listen(host: str, port: int) -> socket.socket:
    """Listen by TCP; port 0 is any free one. Raises `ListenError`."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ListenError(
            f"port {port} of {host}",
            why=error.strerror or str(error),
            remedy="Another program has it, e.g. rpcbind or an NFS server, or ports below 1024 need more rights.",
        ) from error
