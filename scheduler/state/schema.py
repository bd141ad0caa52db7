"""The version of a database's schema, and bringing it up to date.

Commands only compare versions, which takes one query; Alembic is loaded when there is something to migrate.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from scheduler.state.errors import StateVersionError

_MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"


def known_revisions() -> list[str]:
    """The revisions this version of the scheduler has migrations for, oldest first: their files' first words."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def require_current(connection: Connection, name: str) -> None:
    """Raise `StateVersionError` unless the schema of the database `name` is this version's."""
    current = _refuse_newer(connection, name)
    if current is None:
        raise not_set_up(name)
    if current != known_revisions()[-1]:
        raise StateVersionError(
            f"database {name}",
            why=f"its schema {current} is of an older version of the scheduler",
            remedy="Restart `scheduler serve`, which brings it up to date.",
        )


def is_current(connection: Connection, name: str) -> bool:
    """Whether the schema is this version's; raises `StateVersionError` when a newer version made it."""
    return _refuse_newer(connection, name) == known_revisions()[-1]


def migrate(connection: Connection, name: str, revision: str = "head") -> None:
    """Bring the schema up to date, or to a `revision`; raises `StateVersionError` when a newer version made it."""
    if is_current(connection, name):
        return
    from alembic import command  # noqa: PLC0415 - a fifth of every command's start, needed once per upgrade
    from alembic.config import Config  # noqa: PLC0415 - as above

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()


def not_set_up(name: str) -> StateVersionError:
    """The error for a database that no scheduler has used yet."""
    return StateVersionError(
        f"database {name}",
        why="it has not been set up",
        remedy="Run `scheduler apply -f fleet.toml`, or start `scheduler serve`, with this configuration.",
    )


def _refuse_newer(connection: Connection, name: str) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    current: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    if current is not None and current not in known_revisions():
        raise StateVersionError(
            f"database {name}",
            why=f"its schema {current} was made by a newer version of the scheduler",
            remedy="Upgrade this one, or restore the database from before the upgrade.",
        )
    return current
