"""The warden's work: objects are locked at once, and let go of when their term is over.

A locked object is immutable. Above it, folders that hold only folders are append-only, so that none can be renamed
away. Terms are registered before flags are set, and flags are on the disk before anybody hears of it: whatever a
crash leaves between the two is found by the next sweep and locked for a whole term.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import ObjectLockedError, ObjectNotFoundError, checked_name, is_object_name
from proxy_worker.warden import flags
from proxy_worker.warden.flags import Flag
from proxy_worker.warden.register import Register
from proxy_worker.warden.terms import UNLOCKED, Terms, is_lockable

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_REPOSITORYS: Final = frozenset({"lost+found", "tmp"})
_SWEPT_AT_ONCE: Final = 256
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S


class LockError(StoreError):
    """An object can't be locked or let go of: it belongs to somebody else, or isn't a file."""


@dataclass(frozen=True)
class _Found:
    """An object, open."""

    name: str
    file: int
    inode: int
    locked: bool
    left_s: float | None
    """Of its term; None if it isn't registered."""


class Warden:
    """Looks after one folder. Single-threaded."""

    def __init__(self, root: Path, register: Register, terms: Terms) -> None:
        """Raises `OSError`."""
        self._root = os.open(root, _FOLDER)
        self._device = os.fstat(self._root).st_dev
        self._register = register
        self._terms = terms
        self._guarded: set[int] = set()

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    @property
    def folder(self) -> tuple[int, int]:
        """Device and inode of what it looks after."""
        return self._device, os.fstat(self._root).st_ino

    def lock(self, names: Sequence[str], *, renew: bool = False) -> int:
        """Lock those of some objects that aren't; with `renew`, begin terms anew that are due. How many were begun.

        What isn't there is no error. Raises `LockError`, `RegisterError`.
        """
        with ExitStack() as opened:
            found: list[_Found] = []
            for name in filter(is_lockable, names):
                with suppress(ObjectNotFoundError):
                    found.append(opened.enter_context(self._opened(name)))
            fresh = [one for one in found if not one.locked or one.left_s is None]
            due = [one for one in found if renew and self._is_due(one)]
            beginning = {one.inode: self._terms.of(one.name) for one in (*due, *fresh)}
            if beginning:
                self._register.enter(beginning.items())
            for one in fresh:
                with _errors("lock", one.name):
                    flags.put(one.file, Flag.IMMUTABLE)
            for one in fresh:
                with _errors("lock", one.name):
                    os.fsync(one.file)
            return len(beginning)

    def release(self, name: str) -> None:
        """Let go of an object, which may be deleted then.

        Raises `ObjectLockedError` while its term lasts, `ObjectNotFoundError`, `LockError`, `RegisterError`.
        """
        if not is_lockable(name):
            return
        with self._opened(name) as one:
            if not one.locked:
                return
            left_s = self._left_s(one)
            if left_s > 0:
                raise locked(name, left_s)
            with _errors("let go of", name):
                flags.take(one.file, Flag.IMMUTABLE)
            self._register.strike(one.inode)

    def left_s(self, name: str) -> float:
        """How many seconds of an object's term are left; 0 when it isn't locked, or isn't there."""
        if not is_lockable(name):
            return 0.0
        with suppress(ObjectNotFoundError), self._opened(name) as one:
            return self._left_s(one) if one.locked else 0.0
        return 0.0

    def sweep(self) -> int:
        """Lock whatever isn't locked; how many objects that were. Raises `LockError`, `RegisterError`."""
        names, count = self._names(self._root, ""), 0
        while some := list(islice(names, _SWEPT_AT_ONCE)):
            count += self.lock(some)
        return count

    def keep(self) -> None:
        """Note that the upkeep has renewed all that restore points need; raises `RegisterError`."""
        self._register.keep()

    @property
    def overdue(self) -> bool:
        """Whether it should have by now."""
        return self._terms.is_overdue(self._register.since_kept_s)

    def _is_due(self, one: _Found) -> bool:
        return one.left_s is not None and self._terms.is_due(one.name, one.left_s)

    def _left_s(self, one: _Found) -> float:
        """One that was locked and is in no register has a whole term before it."""
        return self._terms.of(one.name) if one.left_s is None else one.left_s

    @contextmanager
    def _opened(self, name: str) -> Iterator[_Found]:
        """An object, found without following links; the folders above it are guarded from then on."""
        *folders, last = checked_name(name).split("/")
        with ExitStack() as opened, _errors("read", name):
            place = self._root
            for folder in folders:
                self._guard(place)
                place = os.open(folder, _FOLDER, dir_fd=place)
                opened.callback(os.close, place)
            file = os.open(last, _FILE, dir_fd=place)
            opened.callback(os.close, file)
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_dev != self._device:
                raise LockError(f"can't lock {name}", why="it is no file of this file system")
            locked = flags.has(file, Flag.IMMUTABLE)
            yield _Found(name, file, found.st_ino, locked, self._register.left_s(found.st_ino))

    def _guard(self, folder: int) -> None:
        inode = os.fstat(folder).st_ino
        if inode not in self._guarded:
            flags.put(folder, Flag.APPEND_ONLY)
            self._guarded.add(inode)

    def _names(self, folder: int, above: str) -> Iterator[str]:
        """What lies below an open folder; what is deeper than any object can be is left out."""
        with _errors("read", above or "the repository's folder"), os.scandir(folder) as entries:
            for entry in entries:
                name = f"{above}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if name not in _NO_REPOSITORYS | UNLOCKED and is_object_name(f"{name}/x"):
                        yield from self._below(folder, name)
                elif above and entry.is_file(follow_symlinks=False) and is_object_name(name):
                    yield name

    def _below(self, folder: int, name: str) -> Iterator[str]:
        with suppress(ObjectNotFoundError), ExitStack() as opened:
            with _errors("read", name):
                below = os.open(name.rpartition("/")[2], _FOLDER, dir_fd=folder)
            opened.callback(os.close, below)
            yield from self._names(below, f"{name}/")


def locked(name: str, left_s: float) -> ObjectLockedError:
    """What somebody is told who wants to get rid of what is locked."""
    how_long = "for ever" if math.isinf(left_s) else f"for another {_in_words(left_s)}"
    return ObjectLockedError(
        f"can't delete or change {name}",
        why=f"the repository is hardened, and this is immutable {how_long}",
        remedy="Nobody can, before the warden's clock has counted that; see docs/hardened-repository.md.",
    )


def _in_words(left_s: float) -> str:
    if left_s < _HOUR_S:
        return "hour at most"
    return f"{left_s / _DAY_S:.1f} days" if left_s >= _DAY_S else f"{left_s / _HOUR_S:.1f} hours"


@contextmanager
def _errors(action: str, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFoundError(f"can't {action} {name}", why="there is no such object") from error
    except OSError as error:
        raise LockError(
            f"can't {action} {name}",
            why=error.strerror or str(error),
            remedy="Everything in the folder has to belong to its owner, whom gateway and warden run as.",
        ) from error
