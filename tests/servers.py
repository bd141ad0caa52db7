"""Real servers for tests: fixtures that a folder's conftest imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey

PASSWORD = "a password, with punctuation: @/#?%"


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """One server for the session; take `valkey` to find it empty."""
    folder = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(folder, PASSWORD, extra_settings=("appendfsync no",)).start() as server:  # loses no power
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> EmbeddedValkey:
    """The session's server, running and empty."""
    if not valkey_server.answers():
        valkey_server.start()
    with redis.Redis(port=valkey_server.port, password=PASSWORD) as client:
        client.flushall()
    return valkey_server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be killed or misconfigured."""
    with EmbeddedValkey(tmp_path / "valkey", PASSWORD) as server:
        yield server
