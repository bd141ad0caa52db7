"""The scheduler's database: opened, brought up to date, and used in short transactions.

SQLite in write-ahead mode by default: readers (the CLI) never wait for the writer, and a writer waits up to
`BUSY_TIMEOUT_S` for another. PostgreSQL by URL works with the same models.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.state.errors import (
    StateDamagedError,
    StateError,
    StateFullError,
    StateLockedError,
    StateReadOnlyError,
    StateUrlError,
)
from scheduler.state.schema import migrate as migrate_schema
from scheduler.state.schema import not_set_up, require_current

BUSY_TIMEOUT_S = 10.0


class State:
    """An open database. Thread-safe; sessions are not."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = database_name(engine)
        self._watching: PoolProxiedConnection | None = None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and writes nothing."""
        with self._explained(), Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, committed at the end unless an exception passes; it holds the write lock throughout."""
        with self._explained(), Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"immediate": True})
            yield session
            session.commit()

    def version(self) -> int | None:
        """A number that is another one after every commit of anybody; costs next to nothing.

        None where there is no such number, or it can't be had: then only the tables tell. For one thread.
        """
        if sqlite_file(self.engine) is None:
            return None
        try:
            if self._watching is None:
                self._watching = self.engine.raw_connection()
            # Never in a transaction, in which it would stay the same.
            ((number,),) = self._watching.cursor().execute("PRAGMA data_version").fetchall()
        except (sqlite3.Error, DatabaseError):
            return None
        return int(number)

    def close(self) -> None:
        """Close every connection."""
        if self._watching is not None:
            self._watching.close()
            self._watching = None
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise explain(error, self.name) from error


def reach_state(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> State:
    """The database at `url` as it is, perhaps still empty: what its lock is taken on before it is migrated.

    Raises `StateUrlError`, or `StateReadOnlyError` when there is no place for it.
    """
    engine = _engine(url, busy_timeout_s)
    _prepare_folder(engine)
    return State(engine)


def open_state(url: str, *, migrate: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S) -> State:
    """Open the database at `url`; with `migrate`, create it or bring it up to date first.

    Raises `StateUrlError`, `StateVersionError` when it was never set up or a newer version made it, and the
    other errors of `scheduler.state.errors` when it can't be used.
    """
    engine = _engine(url, busy_timeout_s)
    name = database_name(engine)
    try:
        if migrate:
            _prepare_folder(engine)
            with engine.connect() as connection:
                migrate_schema(connection, name)
        else:
            path = sqlite_file(engine)
            if path is not None and not path.exists():
                raise not_set_up(name)
            with engine.connect() as connection:
                require_current(connection, name)
    except DatabaseError as error:
        engine.dispose()
        raise explain(error, name) from error
    return State(engine)


def database_name(engine: Engine) -> str:
    """What messages call the database: its file, or its URL without the password."""
    return engine.url.database or "in memory" if sqlite_file(engine) else engine.url.render_as_string()


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database; None for any other."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    return Path(database)


def explain(error: DatabaseError, name: str) -> ProxyfleetError:
    """The error that says what `error` means for whoever runs the scheduler."""
    what = f"database {name}"
    original = error.orig
    text = str(original)
    code = getattr(original, "sqlite_errorcode", -1) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StateLockedError(
            what,
            why=f"another process has held its write lock for more than {BUSY_TIMEOUT_S:.0f} s",
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


def _engine(url: str, busy_timeout_s: float) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True)
        engine = create_engine(parsed, connect_args={"timeout": busy_timeout_s})
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StateUrlError(
            "database_url",
            why=str(error).splitlines()[0],
            remedy="Use e.g. sqlite:////var/lib/proxyfleet/scheduler.db or postgresql+psycopg://user@host/name.",
        ) from error
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin_sqlite` does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes could not wait for another writer, only fail.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _prepare_folder(engine: Engine) -> None:
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
