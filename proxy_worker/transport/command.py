"""A command that serves a disk as NBD on a private Unix socket, supervised: it lives as long as its source.

The command gets its own process group and dies when its source is closed. When this process dies, however it
does, the kernel ends the command (PR_SET_PDEATHSIG, by `setpriv`). The kernel means the thread that started
the command, so all are started from one thread that lives as long as the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar
from urllib.parse import quote

from proxy_worker.contract.errors import SourceError, TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.program.closing import Closing
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.transport.nbd.handshake import NbdConnectError
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import NbdUri, parse_uri


class _Connected(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Connected)

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.005
_HEARING_S: Final = 0.02
"""Until what a server says about a failed read has been heard."""
_LAST_WORDS: Final = 20
"""Lines of a command's stderr that are kept for the error."""


class ToolMissingError(SourceError):
    """A program that reading needs isn't installed."""

    retryable = False


class ServerFailedError(SourceError):
    """The command that should serve a disk didn't."""


class _Starter:
    """The one thread of this process that starts commands; a forked child gets its own."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="start-commands")

    def start(self, popen: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        try:
            started = self._thread.submit(popen)
        except BaseException:  # no memory for the thread: it would start what it was asked for with the next
            self._renew()
            raise
        return started.result()


_starter = _Starter()


def require_tool(name: str, package: str, *, why: str = "reading this disk needs it") -> str:
    """The path of a program. Raises ToolMissingError, which names the Debian package that has it."""
    found = shutil.which(name)
    if found is None:
        raise ToolMissingError(f"{name} isn't installed", why=why, remedy=f"Install the package {package}.")
    return found


class NbdServer:
    """A running command that serves NBD at `uri`."""

    def __init__(
        self,
        command: Callable[[Path], Sequence[str]],
        *,
        what: str,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start a command. `command` gets a private folder, where the socket is to be `nbd.sock`.

        `what` says what is served, for errors. Raises ToolMissingError, ServerFailedError or ScratchError.
        """
        setpriv = require_tool("setpriv", "util-linux")
        self._what = what
        self._scratch = ScratchFolder("nbd")
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._closing = threading.Lock()
        self._closed = False
        self.socket = self._scratch.path / "nbd.sock"
        try:
            with contextlib.ExitStack() as undoing:
                undoing.callback(self._scratch.remove)
                argv = [setpriv, "--pdeathsig", "KILL", "--", *command(self._scratch.path)]
                self._process = _starter.start(
                    lambda: subprocess.Popen(
                        argv,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        pass_fds=pass_fds,
                        start_new_session=True,
                    )
                )
                undoing.callback(self._process.communicate)
                undoing.callback(self._signal, signal.SIGKILL)
                self._pidfd = os.pidfd_open(self._process.pid)
                undoing.callback(os.close, self._pidfd)
                self._listener = threading.Thread(target=self._listen, name="command-stderr", daemon=True)
                self._listener.start()  # as all of these, it may find no memory
                undoing.pop_all()
        except OSError as error:
            raise ServerFailedError(f"can't serve {what}", why=str(error)) from error

    def _listen(self) -> None:
        """Keep the last lines of what the command says."""
        if self._process.stderr is None:
            return
        with self._process.stderr as stderr:
            for line in stderr:
                said = line.decode("utf-8", "replace").strip()[:500]
                log.debug("%s: %s", self._what, said)
                self._words.append(said)

    @property
    def last_words(self) -> str:
        """What the command said last, in one line."""
        return "; ".join(word for word in self._words if word)

    def connect(self, *, mode: TransportMode, reason: str) -> NbdSource:
        """Connect once the command listens. Raises ServerFailedError when it doesn't, or is no NBD server."""
        return self.connected(lambda uri: NbdSource(uri, mode=mode, reason=reason))

    def connected(self, make: Callable[[NbdUri], T]) -> T:
        """What `make` connects to the command once it listens. Raises as `connect`."""
        uri = parse_uri(f"nbd+unix:///?socket={quote(str(self.socket), safe='/')}")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.socket.exists():
            self._require_running()
            if time.monotonic() > deadline:
                raise self._failed(f"it doesn't listen after {START_TIMEOUT_S:.0f} s")
            self._has_ended(within_s=_POLL_S)
        while True:
            try:
                disk = make(uri)
            except NbdConnectError as error:
                self._require_running()
                refused = isinstance(error.__cause__, ConnectionRefusedError)
                if not refused or time.monotonic() > deadline:
                    self.close()  # it may have said why, but not been heard yet
                    raise self._failed(error.why) from error
                self._has_ended(within_s=_POLL_S)  # bound, but not listening yet
            else:
                try:
                    self._require_running()
                except ServerFailedError:
                    disk.close()
                    raise
                return disk

    def _has_ended(self, *, within_s: float = 0.0) -> bool:
        """Whether the command has ended; it stays a zombie, so that its process group can't be another's."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def _ending(self) -> str:
        """How the command ended."""
        info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if info is None:
            return "it still runs"
        if info.si_code == os.CLD_EXITED:
            return f"it ended with exit status {info.si_status}"
        return f"it was ended by signal {info.si_status}"

    def _require_running(self) -> None:
        if not self._has_ended():
            return
        self._listener.join(STOP_TIMEOUT_S)
        raise self._failed(f"{self._ending()}; it must stay in the foreground")

    def _failed(self, why: str) -> ServerFailedError:
        words = self.last_words
        return ServerFailedError(f"can't serve {self._what}", why=f"{why}: {words}" if words else why)

    def explain(self, error: SourceError | TargetError) -> None:
        """Add to an error of reading or writing what the command said, and whether it has ended."""
        ended = f"the server is gone: {self._ending()}" if self._has_ended(within_s=_POLL_S) else ""
        self._listener.join(STOP_TIMEOUT_S if ended else _HEARING_S)
        said = "; ".join(part for part in (error.why, ended, self.last_words) if part)
        error.why = said
        error.args = (str(error),)

    def close(self) -> None:
        """End the command and whatever it started. May be called again."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._signal(signal.SIGTERM)
        self._has_ended(within_s=STOP_TIMEOUT_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._pidfd)
        self._listener.join(STOP_TIMEOUT_S)
        self._scratch.remove()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ServedSource(Closing):
    """A `DiskSource` that a command serves; closing it ends the command."""

    def __init__(
        self, server: NbdServer, *, mode: TransportMode, reason: str, closing: Callable[[], None] | None = None
    ) -> None:
        """Take over `server`; `closing` is called last. Raises ServerFailedError."""
        self.mode = mode
        self.mode_reason = reason
        self._server = server
        self._closing = closing
        try:
            self._disk = server.connect(mode=mode, reason=reason)
        except BaseException:
            server.close()
            raise
        self.size_bytes = self._disk.size_bytes
        self.parallel_reads = self._disk.parallel_reads

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges that the server doesn't know to read as zeros. Raises SourceError."""
        try:
            yield from self._disk.allocated(offset, length)
        except SourceError as error:
            self._server.explain(error)
            raise

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the disk's `offset` on. Raises SourceError."""
        try:
            self._disk.read_into(offset, view)
        except SourceError as error:
            self._server.explain(error)
            raise

    def close(self) -> None:
        """Hang up and end the command. May be called again."""
        self._disk.close()
        self._server.close()
        if self._closing is not None:
            self._closing()
