"""SQLite as the scheduler's database, the default: a file in write-ahead mode, and what its refusals mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.state.errors import (
    StateDamagedError,
    StateError,
    StateFullError,
    StateLockedError,
    StateReadOnlyError,
)


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database; None for any other."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    return Path(database)


def sqlite_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Connections to the file, made when needed; a writer waits so long for another."""
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def prepare_folder(engine: Engine) -> None:
    """Make the file with its folder, for its owner alone; raises `StateReadOnlyError`."""
    path = sqlite_file(engine)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StateReadOnlyError(
            f"database {path}", why=str(error.strerror), remedy="Check `state_dir` and who owns it."
        ) from error


def explain_sqlite(error: DBAPIError, name: str) -> ProxyfleetError:
    """The error that says what `error` means for whoever runs the scheduler."""
    what = f"database {name}"
    original = error.orig
    text = str(original)
    code = getattr(original, "sqlite_errorcode", -1) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StateLockedError(
            what,
            why="another process has held its write lock for too long",
            remedy="Find it with `fuser` on the file, end it, and try again.",
        )
    if code == sqlite3.SQLITE_FULL:
        return StateFullError(what, why="its file system is full", remedy="Free some space and try again.")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return StateReadOnlyError(
            what, why=text, remedy="Check that the file and its folder exist and belong to the scheduler's user."
        )
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return StateDamagedError(
            what,
            why=text,
            remedy="Restore it from its backup; `scheduler repository rescan` brings back the restore points.",
        )
    if code == sqlite3.SQLITE_IOERR:
        return StateError(what, why=f"reading or writing failed: {text}", remedy="Check its file system.")
    return StateError(what, why=text or type(error).__name__)


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes could not wait for another writer, only fail.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
