"""A backup that is stopped at any of its operations on the store harms nothing that was there, nor the next one."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from proxy_worker.repository.check import check
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store import StoreFullError, StoreReadOnlyError
from proxy_worker.repository.store.local import LocalStore
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import CREDENTIAL, PASSPHRASE, back_up, make_repository, noise, restore, text

YESTERDAY = noise(3, 1) + text(2)
TODAY = noise(2, 1) + noise(3, 2) + text(3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one restore point."""
    folder = tmp_path_factory.mktemp("template")
    with make_repository(folder) as repository:
        back_up(repository, YESTERDAY, run="yesterday")
    return folder


@pytest.fixture
def copy(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository"))


def attempt(store: FaultyStore) -> None:
    with Repository.open(store, Credential(passphrase=PASSPHRASE)) as repository:
        back_up(repository, TODAY, run="today")


def operations_of_a_backup(template: Path, folder: Path) -> int:
    store = FaultyStore(LocalStore(Path(shutil.copytree(template, folder))))
    attempt(store)
    return store.operations


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_any_operation(template: Path, tmp_path: Path, after: bool) -> None:
    total = operations_of_a_backup(template, tmp_path / "whole")
    assert total > 20

    # A few more than one run had: how often the index is looked at depends on how far the delivery has come.
    for number in range(total + 3):
        folder = Path(shutil.copytree(template, tmp_path / f"{number}"))
        with contextlib.suppress(StoppedError):
            attempt(FaultyStore(LocalStore(folder), stop_at=number, after=after))

        with Repository.open(LocalStore(folder), CREDENTIAL) as repository:
            report = check(repository.access)
            assert report.findings == (), f"stopped at operation {number}"
            points = {point.run: point for point in repository.points()}
            assert restore(repository, points["yesterday"]) == YESTERDAY
            if "today" in points:
                assert restore(repository, points["today"]) == TODAY
            assert restore(repository, back_up(repository, TODAY, run="again")) == TODAY
            assert check(repository.access).findings == ()
        shutil.rmtree(folder)


@pytest.mark.parametrize("error", [StoreFullError, StoreReadOnlyError])
def test_a_store_that_takes_nothing_more_is_named_and_still_restores(
    copy: Path, error: type[StoreFullError] | type[StoreReadOnlyError]
) -> None:
    """Full or read-only from some write on: the error goes through to the caller as it is."""
    for number in range(4):
        with pytest.raises(error):
            attempt(FaultyStore(LocalStore(copy), stop_at=number, error=error, only_writes=True))

    full = FaultyStore(LocalStore(copy), stop_at=0, error=error, only_writes=True)
    with Repository.open(full, CREDENTIAL) as repository:
        [yesterday] = repository.points()
        with repository.reader(yesterday) as reader:
            assert reader.map("scsi0:0").size_bytes == len(YESTERDAY)
        assert restore(repository, yesterday) == YESTERDAY


def test_what_a_stopped_write_leaves_is_reported_as_harmless(copy: Path) -> None:
    LocalStore(copy).create("packs/ab/never").write(b"half a pack")

    report = scrub(LocalStore(copy))

    assert report.findings == ()
    assert "1 unfinished objects" in report.notes[0]
