"""The lock of an SQLite database that only one scheduler holds, so that nobody dispatches the same tasks twice.

Schedulers that share a PostgreSQL database stand by instead: see `leadership`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.state.errors import SchedulerRunningError, StateReadOnlyError
from scheduler.state.leadership import look_at_servers
from scheduler.state.serving import Servers
from scheduler.state.sqlite import sqlite_file
from scheduler.state.store import State

_REPEATS = 3
_REPEAT_AFTER_S = 0.05


@contextmanager
def only_scheduler(state: State) -> Iterator[None]:
    """Hold the lock of the database for as long as the block lasts, or the process lives.

    Raises `SchedulerRunningError`, which names the holder, when another process has it.
    """
    path = sqlite_file(state.engine)
    if path is None:
        yield
        return
    with _file_lock(path.with_name(f"{path.name}.lock"), state.name):
        yield


def is_served(state: State) -> bool:
    """Whether a scheduler serves from the database now. Looks without getting in its way."""
    return servers_of(state).serving


def servers_of(state: State) -> Servers:
    """Which schedulers serve from the database now, or stand by."""
    path = sqlite_file(state.engine)
    if path is not None:
        return Servers(_file_is_locked(path.with_name(f"{path.name}.lock")))
    with state.read() as session:
        return look_at_servers(session)


def _file_is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # nobody has ever served from here, or it is not ours to look at
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _file_lock(path: Path, name: str) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateReadOnlyError(
            f"lock {path}", why=str(error.strerror), remedy="Check who owns its folder."
        ) from error
    try:
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise _running(name, holder) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{_myself()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock; a command that looks (`is_served`) shares it for an instant, hence the repeats."""
    for _ in range(_REPEATS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_REPEAT_AFTER_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _running(name: str, holder: str) -> SchedulerRunningError:
    return SchedulerRunningError(
        f"database {name}",
        why=f"another scheduler serves from it: {holder}",
        remedy="Use that one, stop it first, or give this one another `state_dir`.",
    )
