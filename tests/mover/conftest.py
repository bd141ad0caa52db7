"""One repository for all of a module's tests: deduplication between them is part of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.repository.making import CHEAP

PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A new encrypted repository with blocks of 64 KiB, so that a segment is 256 MiB."""
    folder = tmp_path_factory.mktemp("repository")
    store = LocalStore(folder)
    Repository.create(store, passphrase=PASSPHRASE, block_size=64 << 10, kdf_cost=CHEAP).close()
    opened = Repository.open(store, Credential(passphrase=PASSPHRASE), cache_dir=tmp_path_factory.mktemp("cache"))
    with opened:
        yield opened
