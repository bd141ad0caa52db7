"""The database as rows by table: read in one look, and put into an empty database of either kind.

Tables are taken as they are found there, not as this version's models have them: rows of an older schema are put
into that schema, and then migrated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from sqlalchemy import MetaData, Table, insert, inspect, select, text
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.server_backup.archive import Rows
from scheduler.server_backup.errors import ArchiveVersionError, RestoreTargetError
from scheduler.state.access import DatabaseAccess
from scheduler.state.schema import VERSION_TABLE, known_revisions, migrate
from scheduler.state.serving import SchedulerProcess
from scheduler.state.store import reach_state

logger = logging.getLogger(__name__)

LEFT_OUT: Final = frozenset({VERSION_TABLE, SchedulerProcess.__tablename__})
"""The version stands in the manifest; which schedulers serve is about the present alone."""
_BATCH: Final = 1000


def schema_of(session: Session) -> str:
    """The revision of the database's schema."""
    return str(session.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))  # noqa: S608 - a constant


def read_tables(session: Session) -> Iterator[Rows]:
    """Every row of every table, those first that others refer to; some rows at a time."""
    for table in _tables(session):
        columns = tuple(str(column.name) for column in table.columns)
        found = session.execute(select(table).execution_options(yield_per=_BATCH))
        for rows in found.partitions(_BATCH):
            yield Rows(str(table.name), columns, tuple(tuple(row) for row in rows))


class Filling:
    """An empty database that is given an archive's rows, in one transaction.

    Used by `with`: what is raised there leaves a PostgreSQL database as empty as it was.
    """

    def __init__(self, access: DatabaseAccess, schema: str) -> None:
        """Make the tables of that schema.

        Raises `ArchiveVersionError` when this version doesn't know it, `RestoreTargetError` when there are tables.
        """
        if schema not in known_revisions():
            raise ArchiveVersionError(
                "backup of the server",
                why=f"its database has schema {schema}, which this version doesn't know",
                remedy="Install the version that made it, or a newer one.",
            )
        self._state = reach_state(access)
        with self._state.explained(), self._state.engine.connect().execution_options(immediate=True) as connection:
            if inspect(connection).get_table_names():
                raise RestoreTargetError(
                    f"database {self._state.name}", why="it is not empty", remedy="Name one that was just made."
                )
            migrate(connection, self._state.name, schema)

    def fill(self, contents: Iterable[Rows]) -> None:
        """Put all rows in, all or nothing."""
        with self._state.write() as session:
            tables = {table.name: table for table in _tables(session)}
            for rows in contents:
                values = [dict(zip(rows.columns, row, strict=True)) for row in rows.rows]
                session.execute(insert(tables[rows.table]), values)
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None and self._state.shared:
                self._empty()
        except ProxyfleetError as failure:
            logger.warning("tables of a restore that failed stay behind: %s", failure)
        finally:
            self._state.close()

    def _empty(self) -> None:
        with self._state.write() as session:
            found = MetaData()
            found.reflect(session.connection())
            found.drop_all(session.connection())


def _tables(session: Session) -> list[Table]:
    found = MetaData()
    found.reflect(session.connection())
    return [table for table in found.sorted_tables if table.name not in LEFT_OUT]
