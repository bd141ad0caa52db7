"""A PostgreSQL server of its own for tests: made by Debian's packages, on 127.0.0.1, as a user who isn't root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pg8000.dbapi

from ops.demo.valkey import free_port

USER = "proxyfleet"
PASSWORD = "planted-database-password"


class PostgresqlServer:
    """A server in a folder of its own, which goes with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="proxyfleet-postgresql-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        # PostgreSQL refuses to run as root; Debian's package makes a user for it.
        if os.geteuid() == 0:
            shutil.chown(self.folder, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        words = ("-D", str(self.folder / "data"), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}")
        subprocess.run([*self._as_user(), _program("initdb"), *words, "--no-sync"], check=True, capture_output=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("fsync=off", f"unix_socket_directories={self.folder}", "listen_addresses=127.0.0.1")
        options = [word for setting in settings for word in ("-c", setting)]
        command = [*self._as_user(), _program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                self._connect().close()
            except (pg8000.dbapi.InterfaceError, pg8000.dbapi.DatabaseError):
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT breaks off what its clients do, SIGQUIT doesn't even write what it holds."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(120)
            self._process = None

    def new_database(self) -> str:
        """The URL of an empty database, without the password."""
        self._databases += 1
        name = f"fleet{self._databases}"
        connection = self._connect()
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"postgresql+pg8000://{USER}@127.0.0.1:{self.port}/{name}"

    def _connect(self) -> pg8000.dbapi.Connection:
        return pg8000.dbapi.connect(USER, "127.0.0.1", "postgres", self.port, PASSWORD, timeout=120)

    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT", "--"]


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, "PostgreSQL isn't installed: see ops/system-packages.txt"
    return str(found[-1])
