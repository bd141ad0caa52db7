"""A wire between a process and its Redis, which a test cuts, hangs or slows down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from enum import Enum, auto
from typing import Final

from ops.demo.valkey import free_port

_PIECE: Final = 65_536


class Wire(Enum):
    """What the relay does with what comes in."""

    WHOLE = auto()
    CUT = auto()
    """Connections are closed, and new ones refused."""
    HUNG = auto()
    """Connections stay, and nothing gets through: no answer, no error."""


class Relay:
    """Forwards a port of its own to `port`, both on 127.0.0.1, until it is closed."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.answer_delay_s = 0.0
        """How much longer each answer takes."""
        self._target = port
        self._wire = Wire.WHOLE
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def wire(self) -> Wire:
        """What it does now."""
        return self._wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        before, self._wire = self._wire, wire
        if wire is Wire.HUNG:
            self._flows.clear()
        else:
            self._flows.set()
        if wire is Wire.CUT:
            self._close()
        elif before is Wire.CUT:
            self._listen()

    def close(self) -> None:
        """End every connection."""
        self.wire = Wire.CUT

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _close(self) -> None:
        with self._lock:
            sockets, self._connections = self._connections, set()
            listener, self._listener = self._listener, None
        for one in [*sockets, *([listener] if listener else [])]:
            _end(one)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            _end(near)
            return
        far.settimeout(None)
        with self._lock:
            if self._listener is None:
                _end(near)
                _end(far)
                return
            self._connections |= {near, far}
        threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
        self._pump(far, near, answers=True)

    def _pump(self, source: socket.socket, sink: socket.socket, *, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                self._flows.wait()
                if answers and self.answer_delay_s:
                    time.sleep(self.answer_delay_s)
                sink.sendall(data)
        _end(source)
        _end(sink)
        with self._lock:
            self._connections -= {source, sink}


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
