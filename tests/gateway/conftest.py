"""One gateway for each module, with an empty store of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.repository.store.local import LocalStore
from tests.gateway.serving import Fleet, Served, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the gateway's repository lies."""
    return tmp_path / "store"


@pytest.fixture
def served(tmp_path: Path, folder: Path) -> Iterator[Served]:
    store = LocalStore(folder)
    store.prepare()
    with serving(Fleet.made(tmp_path / "fleet"), {"main": store}) as running:
        yield running
