"""What several tests of repositories share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.repository.locking import Vault, make_vault
from tests.simulators.object_storage import ObjectStorage, serving


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    """A server that every test has places of its own in."""
    with serving(tmp_path_factory.mktemp("object-storage")) as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores and processes stop; the machine goes on, and loses no power."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def vault(object_storage: ObjectStorage) -> Iterator[Vault]:
    """A repository with object lock."""
    made = make_vault(object_storage)
    yield made
    made.repository.close()
