"""Fixtures of the tests that run Debian's Redis with TLS and users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import SecureRedis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureRedis]:
    """One server for a module's tests."""
    with SecureRedis(tmp_path_factory.mktemp("redis")).start() as started:
        yield started
