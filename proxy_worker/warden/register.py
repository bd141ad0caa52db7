"""The register: until when which object is locked, by a clock that nobody can set.

The clock counts the seconds that a warden was at work, by CLOCK_BOOTTIME, which goes on while a machine sleeps and
which no command sets. What it has counted is written down every minute and with every lock: a crash, and time while
the machine is off, make terms longer, never shorter. Objects go by inode: names can be exchanged by renaming
folders. One SQLite file holds both, and each step is on the disk before the next.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import StoreError

_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS clock (counted_s REAL NOT NULL, kept_s REAL);
    CREATE TABLE IF NOT EXISTS terms (inode INTEGER PRIMARY KEY, until_s REAL NOT NULL);
    INSERT INTO clock SELECT 0, NULL WHERE NOT EXISTS (SELECT 1 FROM clock);
"""

Boottime = Callable[[], float]


def boottime() -> float:
    """Seconds since the machine was started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class RegisterError(StoreError):
    """The register can't be read or written; nothing is let go of without it."""


class Register:
    """One repository's. One thread's at a time, and one process's."""

    def __init__(self, file: Path, boottime: Boottime = boottime) -> None:
        """Raises `RegisterError`."""
        self._file = file
        self._boottime = boottime
        try:
            self._database = sqlite3.connect(file, isolation_level="IMMEDIATE", timeout=0, check_same_thread=False)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._database.executescript(f"BEGIN; {_TABLES} COMMIT")
            ((self._counted_s, self._kept_s),) = self._database.execute("SELECT counted_s, kept_s FROM clock")
        except sqlite3.Error as error:
            raise self._error(error) from error
        self._began_s = boottime()

    @property
    def now_s(self) -> float:
        """What the clock shows, in seconds."""
        return float(self._counted_s) + max(0.0, self._boottime() - self._began_s)

    def left_s(self, inode: int) -> float | None:
        """How many seconds of an object's term are left, 0 when it is over; None of what isn't registered."""
        try:
            row = self._database.execute("SELECT until_s FROM terms WHERE inode = ?", (inode,)).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from error
        return None if row is None else max(0.0, row[0] - self.now_s)

    def enter(self, terms: Iterable[tuple[int, float]]) -> None:
        """Write down new terms, an inode and seconds from now for each."""
        now_s = self.now_s
        # SQLite keeps infinity as it is.
        rows = [(inode, now_s + term_s) for inode, term_s in terms]
        self._commit("INSERT OR REPLACE INTO terms VALUES (?, ?)", rows)

    def strike(self, inode: int) -> None:
        """Forget an object that was let go of."""
        self._commit("DELETE FROM terms WHERE inode = ?", [(inode,)])

    def keep(self) -> None:
        """Note that the upkeep has renewed all that is needed."""
        self._kept_s = self.now_s
        self._commit("UPDATE clock SET kept_s = ?", [(self._kept_s,)])

    @property
    def since_kept_s(self) -> float:
        """How long ago that was, in seconds."""
        return math.inf if self._kept_s is None else self.now_s - self._kept_s

    def save(self) -> None:
        """Write down how far the clock has come."""
        self._commit("", [])

    def close(self) -> None:
        """Save, and end."""
        self.save()
        self._database.close()

    def _commit(self, statement: str, rows: Sequence[tuple[float, ...]]) -> None:
        try:
            with self._database:
                if rows:
                    self._database.executemany(statement, rows)
                self._database.execute("UPDATE clock SET counted_s = ?", (self.now_s,))
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> RegisterError:
        return RegisterError(
            f"register {self._file}",
            why=str(error),
            remedy="Put the file right, or restore it: with a new one every object's term begins again.",
        )
