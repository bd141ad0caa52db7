"""Databases that begin with the schema as all migrations leave it: made once, and written anew for each test.

What migrations do is shown in `tests/scheduler/state`, where every database goes through them. Statements are
compiled once for all databases of a process, whose dialects are the same.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, inspect

from scheduler.state.schema import migrate
from scheduler.state.sqlite import sqlite_engine

_COMPILED: Final[dict[Any, Any]] = {}


def engine_of_tests(url: URL, *, busy_timeout_s: float) -> Engine:
    """Stands for `sqlite_engine`; what is compiled belongs to a dialect, which is shared."""
    engine = sqlite_engine(url, busy_timeout_s=busy_timeout_s)
    event.listen(engine, "connect", _hurry)
    engine.dialect = _dialect()
    return engine.execution_options(compiled_cache=_COMPILED)


def set_up(connection: Connection, name: str, revision: str = "head") -> None:
    """Stands for `scheduler.state.schema.migrate`."""
    if connection.dialect.name != "sqlite" or revision != "head" or inspect(connection).get_table_names():
        migrate(connection, name, revision)
        return
    for statement in _statements():
        connection.exec_driver_sql(statement)
    connection.commit()


def _hurry(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()  # here nothing loses power, and disks are busy


@functools.cache
def _dialect() -> Dialect:
    engine = create_engine("sqlite://")
    engine.connect().close()  # it asks SQLite for its version
    return engine.dialect


@functools.cache
def _statements() -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scheduler.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            migrate(connection, "of tests")
        engine.dispose()
        with contextlib.closing(sqlite3.connect(path)) as database:
            return tuple(line for line in database.iterdump() if line not in {"BEGIN TRANSACTION;", "COMMIT;"})
