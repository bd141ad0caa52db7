"""A copy that is killed at any of its operations, on either store, harms neither, and the next one finishes it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from proxy_worker.mover.copying import CopyOutcome
from proxy_worker.repository.check import check
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.mover.copies import TODAY, YESTERDAY, copy_all, copy_point, make_source, make_target
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import CREDENTIAL, restore


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, and targets of both kinds that have the older of its points."""
    folder = tmp_path_factory.mktemp("copies")
    with make_source(folder / "source") as source:
        for name, twin in (("own", False), ("twin", True)):
            with make_target(folder / name, source, twin=twin) as target:
                copy_point(source, target, source.points()[0])
    return folder


def attempt(source: FaultyStore | LocalStore, target: FaultyStore | LocalStore) -> None:
    with Repository.open(source, CREDENTIAL) as original, Repository.open(target, CREDENTIAL) as copy:
        copy_all(original, copy)


@pytest.mark.parametrize("kind", ["own", "twin"])
def test_killed_at_any_operation_on_the_target(folders: Path, tmp_path: Path, kind: str) -> None:
    whole = FaultyStore(LocalStore(Path(shutil.copytree(folders / kind, tmp_path / "whole"))))
    attempt(LocalStore(folders / "source"), whole)
    assert whole.operations > 15
    for number in range(whole.operations + 1):
        folder = Path(shutil.copytree(folders / kind, tmp_path / f"{number}"))
        store = FaultyStore(LocalStore(folder), stop_at=number, after=number % 2 == 1)
        with contextlib.suppress(StoppedError):
            attempt(LocalStore(folders / "source"), store)

        finish(folders / "source", folder, f"killed at {number}")
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["own", "twin"])
def test_killed_at_any_operation_on_the_source(folders: Path, tmp_path: Path, kind: str) -> None:
    target = Path(shutil.copytree(folders / kind, tmp_path / "whole"))
    whole = FaultyStore(LocalStore(folders / "source"))
    attempt(whole, LocalStore(target))
    assert whole.operations > 10
    for number in range(0, whole.operations + 1, 2):
        target = Path(shutil.copytree(folders / kind, tmp_path / f"{number}"))
        source = FaultyStore(LocalStore(folders / "source"), stop_at=number, after=number % 4 == 2)
        with contextlib.suppress(StoppedError):
            attempt(source, LocalStore(target))

        finish(folders / "source", target, f"killed at {number}")
        shutil.rmtree(target)


def finish(source: Path, target: Path, when: str) -> None:
    """What there is is whole, and the next copy does what is left."""
    with (
        Repository.open(LocalStore(source), CREDENTIAL) as original,
        Repository.open(LocalStore(target), CREDENTIAL) as copy,
    ):
        assert check(copy.access).findings == (), when
        results = copy_all(original, copy)
        assert {result.outcome for result in results} <= {CopyOutcome.COPIED, CopyOutcome.THERE}, when
        assert [restore(copy, point) for point in copy.points()] == [YESTERDAY, TODAY], when
        assert list(copy.access.store.list("writers/")) == [], when
