"""Run a command and measure it: wall time, CPU time, peak anonymous memory of its process and children."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_EVERY_S = 0.02
SETTLE_S = 10.0
"""How long the disk is left alone before whoever writes a whole repository or disk to it. Disks of rented machines,
and SSDs, write faster for a while after a rest, and slower once that credit is spent: without one, each would pay
for what the one before it has written. `os.sync` alone waits for the data, not for the credit."""


class CommandFailedError(Exception):
    """A command of the benchmark exited with an error."""


@dataclass(frozen=True)
class Measured:
    """What a command took. Times in seconds."""

    wall_s: float
    cpu_s: float
    peak_anonymous_bytes: int
    """Largest sum of RssAnon over the process tree that a sample saw (every 20 ms)."""
    output: str


def run(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, folder: Path) -> Measured:
    """Run a command in `folder`; raises `CommandFailedError` with its output when it fails."""
    arguments = [str(part) for part in command]
    os.sync()  # what an earlier contender left to write must not be paid for by this one
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = _Peak(process.pid)
    peak.start()
    output, _ = process.communicate()
    wall = time.monotonic() - start
    peak.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise CommandFailedError(f"{' '.join(arguments)} exited with {process.returncode}:\n{output[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall, cpu, peak.bytes, output)


def rest() -> None:
    """Have everything written, and let the disk rest."""
    os.sync()
    time.sleep(SETTLE_S)


class _Peak(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            self.bytes = max(self.bytes, sum(map(_anonymous_bytes, _tree(self._pid))))

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def _anonymous_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below `folder`, while others come and go there."""
    size_bytes = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size_bytes += path.stat().st_size if path.is_file() else 0
    return size_bytes
