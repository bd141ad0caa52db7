"""Fixtures of the tests that run real proxies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.valkey import EmbeddedValkey
from tests.servers import own_valkey, valkey, valkey_server
from tests.tasks.fleet import Fleet

__all__ = ["fleet", "own_valkey", "valkey", "valkey_server"]


@pytest.fixture
def fleet(tmp_path: Path, valkey: EmbeddedValkey) -> Iterator[Fleet]:
    """A fleet without proxies yet."""
    made = Fleet(tmp_path, valkey)
    yield made
    made.end()
