"""A database of either kind, for what has to hold on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.state.access import DatabaseAccess


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseAccess:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        return DatabaseAccess(f"sqlite:///{tmp_path / 'scheduler.db'}")
    shared: DatabaseAccess = request.getfixturevalue("shared_database")
    return shared
