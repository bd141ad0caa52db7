"""PostgreSQL as the scheduler's database: how it is connected to, and what its refusals mean.

Writers wait for each other, as SQLite's do: all that was written with one of them in mind holds for the other.
"""

from __future__ import annotations

import logging
import os
import ssl
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.state.access import DatabaseAccess
from scheduler.state.errors import (
    StateError,
    StateFullError,
    StateLockedError,
    StatePasswordError,
    StateReadOnlyError,
    StateUnreachableError,
    StateUrlError,
)

SOCKET_TIMEOUT_S: Final = 30.0
"""How long an answer may take before the server counts as gone."""
IDLE_WRITER_S: Final = 8.0
"""A transaction that writes and is silent for so long is ended by the server: its process is frozen or cut off."""
_WRITERS: Final = 0x70726F787966  # "proxyf": PostgreSQL's advisory locks are told apart by numbers
_MS: Final = 1000

LOST: Final = (ConnectionError, TimeoutError, ssl.SSLError)
"""What the driver lets through when the network fails, instead of errors of its own."""

_REFUSALS: Final[dict[str, tuple[type[ProxyfleetError], str, str]]] = {
    "28": (StatePasswordError, "it refuses the user or the password", "Check `database_url` and the secret."),
    "3D": (StateUrlError, "there is no such database", "Make it with `createdb`, and check `database_url`."),
    "42501": (StatePasswordError, "its user may not do that", "Make the user the owner of the database."),
    "53100": (StateFullError, "its file system is full", "Free some space there and try again."),
    "25006": (StateReadOnlyError, "it is a replica, or read-only", "Name the primary in `database_url`."),
    "55P03": (
        StateLockedError,
        "another process has held its write lock for too long",
        "Find it in `pg_stat_activity`, end it, and try again.",
    ),
    "57P": (StateUnreachableError, "it is stopping or starting", "Try again when it runs."),
    "53300": (StateUnreachableError, "it has no connection left", "Raise `max_connections` there."),
    "25P": (StateUnreachableError, "it ended a transaction that was silent", "Try again."),
}
"""What codes (SQLSTATE) and classes of codes mean."""


def postgresql_engine(
    access: DatabaseAccess, url: URL, *, busy_timeout_s: float, socket_timeout_s: float = SOCKET_TIMEOUT_S
) -> Engine:
    """Connections to the server, made when needed; whoever writes holds the one lock that writers have.

    Raises `StateUrlError` when the authority's file can't be read.
    """
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+pg8000")
    arguments: dict[str, Any] = {"timeout": socket_timeout_s, "application_name": f"proxyfleet {os.getpid()}"}
    if access.password is not None:
        arguments["password"] = access.password
    if access.ca_file is not None:
        try:
            arguments["ssl_context"] = ssl.create_default_context(cafile=str(access.ca_file))
        except OSError as error:
            raise StateUrlError(
                f"database_ca_file {access.ca_file}",
                why=error.strerror or str(error),
                remedy="Name the file with the certificate of the authority that certified the server.",
            ) from error
    engine = create_engine(url, pool_pre_ping=True, connect_args=arguments)
    milliseconds = str(int(busy_timeout_s * _MS))

    # Connections that are gone are no news: whoever needed one gets an error that says so.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("beside_writers", False):
            return
        if not options.get("immediate", False):
            # Several looks at the tables are one look, as in SQLite.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return
        connection.execute(
            select(
                func.set_config("lock_timeout", milliseconds, True),
                func.set_config("idle_in_transaction_session_timeout", str(int(IDLE_WRITER_S * _MS)), True),
            )
        )
        connection.execute(select(func.pg_advisory_xact_lock(_WRITERS)))

    event.listen(engine, "begin", begin)
    return engine


def explain_postgresql(error: Exception, name: str) -> ProxyfleetError:
    """The error that says what `error` means for whoever runs the scheduler: SQLAlchemy's, or one of `LOST`."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    what, said = f"database {name}", original.args[0] if original.args else ""
    if not isinstance(said, dict):
        return StateUnreachableError(what, why=str(original), remedy="Check that PostgreSQL runs there.")
    code, message = said.get("C", ""), said.get("M", "")
    for prefix, (kind, why, remedy) in _REFUSALS.items():
        if code.startswith(prefix):
            return kind(what, why=f"{why} ({message})", remedy=remedy)
    return StateError(what, why=f"{message} ({code})")
