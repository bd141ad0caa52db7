"""A wire between a process and what it calls, Redis or a gateway: cut, hung, long, overheard, as a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from queue import Queue
from typing import Final

_HERE: Final = "127.0.0.1"
_PIECE: Final = 65_536
_PIECES_UNDER_WAY: Final = 256
"""Of a long wire: more than any wire of a test holds."""


class Wire(Enum):
    """What the relay does with what comes in."""

    WHOLE = auto()
    CUT = auto()
    """Connections are closed, and new ones refused."""
    HUNG = auto()
    """Connections stay, and nothing gets through: no answer, no error."""


class Relay:
    """Forwards a port of its own on `host` to `port` on 127.0.0.1, until it is closed.

    Both are in the network of the thread that makes it, and that mends it.
    """

    def __init__(self, port: int, *, host: str = _HERE, own_port: int = 0, delay_s: float = 0.0) -> None:
        """`own_port`: a free one unless told. `delay_s`: how long whatever crosses is under way, in each direction;
        much may be at the same time."""
        self.host = host
        self.port = own_port
        """Where it listens."""
        self.answer_delay_s = 0.0
        """How much longer each answer takes; the next waits for it."""
        self.overheard: Callable[[bytes], None] = lambda _: None
        """Is told all that crosses, in both directions."""
        self._target = port
        self._delay_s = delay_s
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
        listener = socket.create_server((self.host, self.port), backlog=128)
        self._listener = listener
        self.port = listener.getsockname()[1]
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
            far = socket.create_connection((_HERE, self._target), timeout=5)
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
        line = _LongLine(sink, self._delay_s) if self._delay_s else None
        send = line.send if line else sink.sendall
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                self._flows.wait()
                if answers and self.answer_delay_s:
                    time.sleep(self.answer_delay_s)
                self.overheard(data)
                send(data)
        if line:
            line.end()
        _end(source)
        _end(sink)
        with self._lock:
            self._connections -= {source, sink}


class _LongLine:
    """Hands on what it is given after a while, in order; what comes meanwhile is under way, too."""

    def __init__(self, sink: socket.socket, delay_s: float) -> None:
        self._sink = sink
        self._delay_s = delay_s
        self._under_way: Queue[tuple[float, bytes] | None] = Queue(_PIECES_UNDER_WAY)
        self._thread = threading.Thread(target=self._hand_on, daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Begin a piece's way."""
        self._under_way.put((time.monotonic() + self._delay_s, data))

    def end(self) -> None:
        """Return once everything has arrived, or has nowhere to arrive."""
        self._under_way.put(None)
        self._thread.join()

    def _hand_on(self) -> None:
        broken = False
        while piece := self._under_way.get():
            due_s, data = piece
            time.sleep(0 if broken else max(0.0, due_s - time.monotonic()))
            try:
                self._sink.sendall(data)
            except OSError:
                broken = True  # the rest is taken all the same: whoever sends must not wait for ever


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
