"""The NBD server: listens where only this machine's users are, and gives each client threads of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from proxy_worker.export.disk import Disk
from proxy_worker.export.negotiation import negotiate
from proxy_worker.export.transmission import Transmission
from proxy_worker.program.listening import ListenError

logger = logging.getLogger(__name__)

NEGOTIATION_TIMEOUT_S: Final = 15.0
MOST_CLIENTS: Final = 32


class Server:
    """Serves disks by name until it is closed. A client that names none gets the first."""

    def __init__(self, exports: Mapping[str, Disk], listener: socket.socket) -> None:
        self._exports = dict(exports)
        self._listener = listener
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    def uri(self, name: str) -> str:
        """How clients name an export."""
        address = self._listener.getsockname()
        name = quote(name, safe=":")
        if isinstance(address, str):
            return f"nbd+unix:///{name}?socket={quote(address)}"
        return f"nbd://{address[0]}:{address[1]}/{name}"

    def start(self) -> None:
        """Accept clients in a thread."""
        thread = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Send everybody away, and wait until nothing is read any more. Idempotent."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed.is_set() or len(self._clients) >= MOST_CLIENTS:
                    client.close()
                    continue
                self._clients.add(client)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                thread = threading.Thread(target=self._serve, args=(client,), name="nbd-client", daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.settimeout(NEGOTIATION_TIMEOUT_S)
            agreement = negotiate(client, self._exports)
            client.settimeout(None)
            if agreement is not None:
                Transmission(client, agreement).run()
        except (OSError, EOFError, ValueError, struct.error) as error:
            logger.debug("a client was sent away: %s", error)
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()


def listen_on_socket(path: Path) -> socket.socket:
    """Listen on a Unix socket that only this user can connect to. Raises `ListenError`."""
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(
            f"socket {path}",
            why=error.strerror or str(error),
            remedy="Name a path that doesn't exist, in a folder that does.",
        ) from error
    finally:
        os.umask(before)
    return listener


def _remove_dead(path: Path) -> None:
    """Remove a socket that a killed server has left; one that somebody listens on stays, as any other file does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink(missing_ok=True)
        except OSError:
            return


def listen_on_loopback(port: int) -> socket.socket:
    """Listen on 127.0.0.1 only: NBD asks nobody who they are. Port 0 is any free one. Raises `ListenError`."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ListenError(
            f"port {port} of 127.0.0.1", why=error.strerror or str(error), remedy="Choose another --port."
        ) from error
