"""What a task last wrote, kept outside the process that works on it: the outcome of one that kills its processes.

A file for each task at work, in `<state_dir>/tasks`: everything the pool process logs meanwhile, how far it is and
how much memory it takes, and the stack where a fault in native code ended it. Removed when the task ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.node.events import progress_line
from proxy_worker.node.logs import FORMAT

log = logging.getLogger(__name__)

LINES_KEPT: Final = 30
LINE_CHARACTERS: Final = 300
NOTE_EVERY_S: Final = 10.0
_TAIL_BYTES: Final = 16 << 10
_GROWTH: Final = 1.25
_MIB: Final = 1 << 20
_SIGNAL: Final = re.compile(r"signal \d+ \((\w+)\)")
_EXIT_CODE: Final = re.compile(r"exitcode (\d+)")
_MEMORY: Final = re.compile(r"(\d+) MiB in memory")


class TaskLog:
    """Keeps the log of one task for as long as the `with` block lasts. Needed by nobody who lives: what can't be
    written is left out."""

    def __init__(self, state_dir: Path, task_id: str, number: int) -> None:
        self._path = _path(state_dir, task_id, number)
        self._file: TextIO | None = None
        self._handler: logging.Handler = logging.NullHandler()
        self._noted_at_s = 0.0
        self._noted_bytes = 0

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            self._file = self._path.open("w")
            self._handler = _Quiet(self._file)
            self._handler.setFormatter(logging.Formatter(FORMAT))
            logging.getLogger().addHandler(self._handler)
            faulthandler.enable(self._file, all_threads=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self._handler)
        if self._file is not None:
            faulthandler.disable()
            with contextlib.suppress(OSError):  # a full disk shows itself once more
                self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def note(self, progress: DiskProgress) -> None:
        """Write how far the task is and what memory it takes: now and then, sooner when that grows."""
        memory = _memory_bytes()
        now_s = time.monotonic()
        if now_s - self._noted_at_s < NOTE_EVERY_S and memory < self._noted_bytes * _GROWTH:
            return
        self._noted_at_s, self._noted_bytes = now_s, memory
        if self._file is not None:
            line = f"{progress_line(progress)}, {memory // _MIB} MiB in memory"
            self._handler.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None))


class _Quiet(logging.StreamHandler[TextIO]):
    """A full disk is no reason to print a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out."""


def last_words(state_dir: Path, task_id: str, number: int) -> tuple[str, ...]:
    """The last lines of a task whose process is dead; the file is removed."""
    path = _path(state_dir, task_id, number)
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        path.unlink()
    except OSError:
        return ()
    lines = text.splitlines()
    fatal = next((at for at, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    end = len(lines) if fatal is None else fatal + LINES_KEPT // 2  # a deep stack must not hide what came before it
    return tuple(line[:LINE_CHARACTERS] for line in lines[:end][-LINES_KEPT:])


def forget_logs(state_dir: Path) -> None:
    """Remove what a former life has left."""
    shutil.rmtree(state_dir / "tasks", ignore_errors=True)


class Coroner:
    """Says how a process died. Made while all of them live."""

    def __init__(self) -> None:
        self._killed_for_memory = _killed_for_memory()

    def cause(self, said: str, words: Sequence[str]) -> str:
        """What goes on after "its process": `said` is what its parent saw, `words` are its last lines."""
        if found := _SIGNAL.search(said):
            cause = f"was killed by {found[1]}"
        elif found := _EXIT_CODE.search(said):
            cause = f"ended with exit code {found[1]}"
        else:
            cause = "died"
        memory = next((found[1] for line in reversed(words) if (found := _MEMORY.search(line))), None)
        if memory is not None:
            cause += f" with {memory} MiB in memory"
        killed, self._killed_for_memory = self._killed_for_memory, _killed_for_memory()
        if self._killed_for_memory > killed:
            cause += ", out of memory: the kernel has just killed for want of it"
        return cause


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory, in containers too; 0 where it doesn't say."""
    try:
        with Path("/proc/vmstat").open() as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def _memory_bytes() -> int:
    """What this process has in memory; 0 where it can't be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _path(state_dir: Path, task_id: str, number: int) -> Path:
    """A task's id comes from Redis, and is not to be trusted with a path."""
    return state_dir / "tasks" / f"{hashlib.sha256(task_id.encode()).hexdigest()[:32]}.{number}.log"
