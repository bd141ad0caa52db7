"""What a pool process keeps open while somebody changes what is in its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.node.bench import Bench
from proxy_worker.repository.errors import RepositoryNotFoundError
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.node.benches import bench_of
from tests.repository.making import CREDENTIAL, PASSPHRASE, VM, back_up, make_repository, noise, restore


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A proxy's that has the passphrase of `main`."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "main.passphrase").write_bytes(PASSPHRASE)
    made = bench_of(tmp_path)
    yield made
    made.forget_repositories()


def test_what_is_stored_in_another_repository_at_the_same_place_can_be_read(bench: Bench, tmp_path: Path) -> None:
    """As where two disks take turns, or a repository was removed and made anew."""
    folder = tmp_path / "main"
    main = RepositoryReference(name="main", location=str(folder), credential="main")
    make_repository(folder).close()
    back_up(bench.repository(main, "write"), noise(2), run="before")
    folder.rename(tmp_path / "the other disk")
    make_repository(folder).close()

    back_up(bench.repository(main, "write"), noise(3), run="after")

    with Repository.open(LocalStore(folder), CREDENTIAL) as opened:
        assert restore(opened, opened.point(VM.vm_id, "after")) == noise(3)


def test_a_file_system_that_is_not_mounted_any_more_is_no_empty_repository(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "main"
    main = RepositoryReference(name="main", location=str(folder), credential="main")
    make_repository(folder).close()
    back_up(bench.repository(main, "write"), noise(2), run="before")
    shutil.rmtree(folder)
    folder.mkdir()

    with pytest.raises(RepositoryNotFoundError, match="mounted"):
        bench.repository(main, "write")
