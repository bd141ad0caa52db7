"""The scheduler's database: opened, brought up to date, and used in short transactions.

SQLite in write-ahead mode by default: readers (the CLI) never wait for the writer, and a writer waits up to
`BUSY_TIMEOUT_S` for another. PostgreSQL by URL works with the same models (`postgresql`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, PoolProxiedConnection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.state.access import DatabaseAccess
from scheduler.state.errors import StateUrlError
from scheduler.state.postgresql import LOST, SOCKET_TIMEOUT_S, explain_postgresql, postgresql_engine
from scheduler.state.schema import is_current, not_set_up, require_current
from scheduler.state.schema import migrate as migrate_schema
from scheduler.state.sqlite import explain_sqlite, prepare_folder, sqlite_engine, sqlite_file

BUSY_TIMEOUT_S = 10.0


class State:
    """An open database. Thread-safe; sessions are not."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = database_name(engine)
        self.guard: Callable[[Session], None] | None = None
        """Called first in every transaction that writes; raises when its user may not write any more."""
        self._watching: PoolProxiedConnection | None = None

    @property
    def shared(self) -> bool:
        """Whether several schedulers may use it, of which one leads."""
        return sqlite_file(self.engine) is None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and writes nothing."""
        with self.explained(), Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, committed at the end unless an exception passes; it holds the write lock throughout."""
        with self.explained(), Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"immediate": True})
            if self.guard is not None:
                self.guard(session)
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
    def explained(self) -> Iterator[None]:
        """Have the database's failures raised as errors of `scheduler.state.errors`."""
        try:
            yield
        except DBAPIError as error:
            raise _explain(error, self.name) from error
        except LOST as error:
            raise explain_postgresql(error, self.name) from error


def reach_state(
    database: str | DatabaseAccess,
    *,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    socket_timeout_s: float = SOCKET_TIMEOUT_S,
) -> State:
    """The database as it is, perhaps still empty: what its lock is taken on before it is migrated.

    `database` is a URL, or all that it takes to reach it. Raises `StateUrlError`, or `StateReadOnlyError` when
    there is no place for it.
    """
    engine = _engine(database, busy_timeout_s, socket_timeout_s)
    prepare_folder(engine)
    return State(engine)


def open_state(
    database: str | DatabaseAccess, *, migrate: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> State:
    """Open the database; with `migrate`, create it or bring it up to date first.

    Raises `StateUrlError`, `StateVersionError` when it was never set up or a newer version made it, and the
    other errors of `scheduler.state.errors` when it can't be used.
    """
    engine = _engine(database, busy_timeout_s)
    name = database_name(engine)
    try:
        if migrate:
            prepare_folder(engine)
            with engine.connect() as connection:
                current = is_current(connection, name)
            if not current:
                with engine.connect().execution_options(immediate=True) as connection:
                    migrate_schema(connection, name)
        else:
            path = sqlite_file(engine)
            if path is not None and not path.exists():
                raise not_set_up(name)
            with engine.connect() as connection:
                require_current(connection, name)
    except (DBAPIError, *LOST) as error:
        engine.dispose()
        raise _explain(error, name) from error
    return State(engine)


def database_name(engine: Engine) -> str:
    """What messages call the database: its file, or its URL without the password."""
    return engine.url.database or "in memory" if sqlite_file(engine) else engine.url.render_as_string()


def _explain(error: Exception, name: str) -> ProxyfleetError:
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return explain_sqlite(error, name)
    return explain_postgresql(error, name)


def _engine(
    database: str | DatabaseAccess, busy_timeout_s: float, socket_timeout_s: float = SOCKET_TIMEOUT_S
) -> Engine:
    access = database if isinstance(database, DatabaseAccess) else DatabaseAccess(database)
    try:
        url = make_url(access.url)
        if url.get_backend_name() == "sqlite":
            return sqlite_engine(url, busy_timeout_s=busy_timeout_s)
        if url.get_backend_name() == "postgresql":
            return postgresql_engine(access, url, busy_timeout_s=busy_timeout_s, socket_timeout_s=socket_timeout_s)
        why = f"{url.get_backend_name()} is neither sqlite nor postgresql"
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        why = str(error).splitlines()[0]
    raise StateUrlError(
        "database_url",
        why=why,
        remedy="Use e.g. sqlite:////var/lib/proxyfleet/scheduler.db or postgresql+pg8000://user@host/name.",
    )
