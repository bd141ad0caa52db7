"""A database of either kind, for what has to hold on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.state.access import DatabaseAccess
from tests.postgresql_server import PASSWORD, PostgresqlServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        yield server


@pytest.fixture
def shared_database(postgresql: PostgresqlServer) -> DatabaseAccess:
    """An empty database on PostgreSQL."""
    return DatabaseAccess(postgresql.new_database(), PASSWORD)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseAccess:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        return DatabaseAccess(f"sqlite:///{tmp_path / 'scheduler.db'}")
    shared: DatabaseAccess = request.getfixturevalue("shared_database")
    return shared
