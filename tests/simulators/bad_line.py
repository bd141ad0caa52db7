"""A bad way to a real server of HTTP: requests pass, are refused, get no answer, or wait, as a test says."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_TIMEOUT_S = 60


@dataclass(frozen=True)
class Fault:
    """What becomes of a request."""

    status: int | None = None
    """It is answered so, and the server never sees it."""
    body: bytes = b""
    """`{key}` in it is the first key that the request names."""
    lose_answer: bool = False
    """The server does it, and the connection ends."""
    delay_s: float = 0.0


class BadLine:
    """Passes everything on, but what `fault` has something to say about, by method and target.

    A POST that deletes several objects goes as DELETE.
    """

    def __init__(self, endpoint: str) -> None:
        self.server = urlsplit(endpoint).netloc
        self.seen: Counter[str] = Counter()
        """Requests that came in, by method."""
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _target: None

    def first(self, count: int, method: str, fault: Fault) -> None:
        """Have the next `count` requests of a method meet with a fault."""
        left, lock = [fault] * count, threading.Lock()

        def faulty(asked: str, _: str) -> Fault | None:
            with lock:
                return left.pop() if asked == method and left else None

        self.fault = faulty

    def always(self, method: str, fault: Fault) -> None:
        """Have each request of a method meet with a fault."""
        self.fault = lambda asked, _: fault if asked == method else None


@contextlib.contextmanager
def bad_line(endpoint: str) -> Iterator[tuple[BadLine, str]]:
    """A line, and the endpoint that is reached by it, until the block ends."""
    line = BadLine(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            method = "DELETE" if self.path.endswith("?delete") else self.command
            line.seen[method] += 1
            fault = line.fault(method, self.path) or Fault()
            time.sleep(fault.delay_s)
            if fault.status is not None:
                key = re.search(rb"<Key>(.*?)</Key>", body)
                self._send(fault.status, [], fault.body.replace(b"{key}", key[1] if key else b""))
                return
            connection = http.client.HTTPConnection(line.server, timeout=_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                if fault.lose_answer:
                    answer.read()
                    self.close_connection = True
                    return
                self._send(answer.status, answer.getheaders(), answer.read())

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - names of http.server

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            for name, value in headers:
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", lengths[0] if self.command == "HEAD" and lengths else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield line, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
