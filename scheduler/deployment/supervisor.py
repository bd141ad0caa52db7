"""Keeps a proxy running on a machine without systemd: `python3 supervisor.py start|stop|look`.

It lies on that machine beside `supervisor.json` and may use nothing but Python's own library. The lock beside it
says whether it runs, and holds its process's number; the proxy's output goes to `proxy.log`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOCK, LOG = HERE / "lock", HERE / "proxy.log"
LOG_LIMIT_BYTES = 10 << 20
STOP_TIMEOUT_S = 120.0
START_TIMEOUT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, HEALTHY_AFTER_S = 1.0, 60.0, 30.0
POLL_S = 0.05
_PR_SET_NO_NEW_PRIVS = 38


class Supervisor:
    """One proxy's process, started again whenever it ends by itself."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._command: list[str] = settings["command"]
        self._account: str | None = settings["account"]
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Until SIGTERM, which goes on to the proxy; what of it is left after a while is killed."""
        signal.signal(signal.SIGTERM, self._stop)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            began = time.monotonic()
            self._process = self._started()
            if self._stopping:
                self._process.terminate()
            self._wait(self._process)
            kill_group(self._process.pid)
            pause_s = FIRST_PAUSE_S if time.monotonic() - began > HEALTHY_AFTER_S else pause_s * 2
            until = time.monotonic() + min(pause_s, LONGEST_PAUSE_S)
            while not self._stopping and time.monotonic() < until:
                time.sleep(POLL_S)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        stopping_since: float | None = None
        while process.poll() is None:
            if self._stopping:
                stopping_since = stopping_since or time.monotonic()
                if time.monotonic() - stopping_since > STOP_TIMEOUT_S:
                    return
            time.sleep(POLL_S)

    def _started(self) -> subprocess.Popen[bytes]:
        if LOG.exists() and LOG.stat().st_size > LOG_LIMIT_BYTES:
            LOG.replace(LOG.with_suffix(".log.1"))
        with LOG.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self._account,
                group=self._account,
                extra_groups=_groups(self._account) if self._account else None,
                umask=0o077,
                start_new_session=True,
            )


def _groups(account: str) -> list[int]:
    return os.getgrouplist(account, pwd.getpwnam(account).pw_gid)


def kill_group(leader: int) -> None:
    """End what a proxy's process left behind."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def holder() -> int | None:
    """The process that holds the lock; None when nobody does."""
    with LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return int(lock.read() or 0)
    return None


def start() -> None:
    """Start it in the background, stopping the one that runs first."""
    stop()
    with LOG.open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", str(HERE / "supervisor.py"), "run"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not holder() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def stop() -> None:
    """Stop it and wait for its end."""
    process = holder()
    if process:
        os.kill(process, signal.SIGTERM)
    while holder():
        time.sleep(POLL_S)


def main() -> int:
    """Do what the first argument says."""
    what = sys.argv[1]
    if what == "run":
        with LOCK.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            Supervisor(json.loads((HERE / "supervisor.json").read_text())).run()
        return 0
    if what in {"start", "stop"}:
        (start if what == "start" else stop)()
    print(json.dumps({"running": bool(holder())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
