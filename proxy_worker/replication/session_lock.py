"""Who may write a replica's disk: one session at a time, and none that an earlier fence was given to.

The kernel takes a lock back when its holder ends, however that ends: who gets it knows that the former session
writes no more. The file also has the highest fence that ever wrote, so that a proxy that was frozen and wakes up is
refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from proxy_worker.replication.errors import ReplicaBusyError, ReplicaUnwritableError, StaleSessionError

POLL_S: Final = 0.2
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@contextmanager
def writing(path: Path, what: str, fence: int, *, patience_s: float, go_on: Callable[[], None]) -> Iterator[None]:
    """Hold a disk for a session; waits for the former one to end, and calls `go_on` meanwhile, which may raise.

    Raises `ReplicaBusyError` after `patience_s`, `StaleSessionError`, `ReplicaUnwritableError`.
    """
    with _opened(path, what) as file:
        _lock(file, what, patience_s, go_on)
        highest = _noted(file)
        if highest > fence:
            raise StaleSessionError(
                f"{what} can't be written by session {fence}",
                why=f"session {highest} has had it since",
                remedy=f"If it was another scheduler's, which is no more, remove {path}.",
            )
        os.pwrite(file, b"%020d" % fence, 0)
        os.fsync(file)
        yield


@contextmanager
def nobody_writes(
    paths: Iterable[Path], what: str, *, patience_s: float = 0.0, go_on: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Keep everybody else away from what these files stand for.

    Raises `ReplicaBusyError` after `patience_s`, `ReplicaUnwritableError`, and what `go_on` raises meanwhile.
    """
    with ExitStack() as held:
        for path in paths:
            _lock(held.enter_context(_opened(path, what)), what, patience_s, go_on)
        yield


@contextmanager
def _opened(path: Path, what: str) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ReplicaUnwritableError(what, why=str(error)) from error
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int, what: str, patience_s: float, go_on: Callable[[], None]) -> None:
    deadline_s = time.monotonic() + patience_s
    while not _locked(file):
        if time.monotonic() > deadline_s:
            raise ReplicaBusyError(f"{what} can't be written", why="something else is at work on it")
        go_on()
        time.sleep(POLL_S)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # else the lease alone keeps others away
            raise
    return True


def _noted(file: int) -> int:
    with contextlib.suppress(ValueError):
        return int(os.pread(file, 20, 0))
    return 0
