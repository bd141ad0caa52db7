"""The process that serves restore points to hosts, and the thread of the proxy that keeps it running."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy_worker.config import ProxyConfiguration
from proxy_worker.export.nfs.server import NfsServer, listen
from proxy_worker.ledger import ProxyIdentity
from proxy_worker.node.bench import Bench
from proxy_worker.node.draining import Draining
from proxy_worker.node.served_points import OpenShares, sweep_ended
from proxy_worker.program.instant_restore import InstantRestoreSettings
from proxy_worker.transport.command import require_tool

log = logging.getLogger(__name__)

COMMAND: Final = "serve-points"
_AGAIN_S: Final = 2.0
"""How long after the end of a server the next one is started."""
_SWEEP_S: Final = 5.0
"""How often shares are looked for that have ended."""
_END: Final = (signal.SIGINT, signal.SIGTERM)


def serve_points(configuration: ProxyConfiguration, settings: InstantRestoreSettings) -> None:
    """Serve until a signal says otherwise. Raises `ListenError`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # in every thread that is started from here on
    bench = Bench(configuration, ProxyIdentity(configuration.name, "", life="", lock=""), Draining())
    settings.folder.mkdir(parents=True, exist_ok=True)
    sweep_ended(settings.folder)
    shares = OpenShares(settings.folder, lambda reference: bench.open_repository(reference, "read"))
    server = NfsServer(shares, listen(str(settings.listen), settings.port), settings.clients)
    try:
        if settings.portmapper:
            server.map_port(str(settings.listen))
        server.start()
        log.info("serving restore points at port %d", server.port)
        while signal.sigtimedwait(_END, _SWEEP_S) is None:
            shares.sweep()
    finally:
        server.close()
        shares.close()


@contextlib.contextmanager
def points_served(settings: InstantRestoreSettings | None, config: Path, log_level: str) -> Iterator[None]:
    """Keep a server running while the block does, where proxy.toml says so. It ends with this process, too."""
    if settings is None:
        yield
        return
    keeper = _Keeper(config, log_level)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


class _Keeper(threading.Thread):
    """Starts the server, and starts it again when it has ended."""

    def __init__(self, config: Path, log_level: str) -> None:
        super().__init__(name="point-server", daemon=True)
        own = [sys.executable, "-m", "proxy_worker", COMMAND, "--config", str(config), "--log-level", log_level]
        setpriv = require_tool("setpriv", "util-linux", why="serving restore points needs it")
        self._command = [setpriv, "--pdeathsig", "TERM", "--", *own]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                if self._stopping.is_set():
                    return
                # By posix_spawn: a pool process that is forked meanwhile must not inherit the pipe by which Popen
                # otherwise waits for its child to begin, and so keep it waiting for as long as it lives.
                self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, close_fds=False)
            status = self._process.wait()
            if not self._stopping.is_set():
                log.error("the server of restore points has ended with status %d: it is started again", status)
            self._stopping.wait(_AGAIN_S)

    def stop(self) -> None:
        """End the server, which makes durable what it has."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()
        self.join()
