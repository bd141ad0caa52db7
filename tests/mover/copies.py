"""Two small repositories, one with restore points, for tests of copies."""

from __future__ import annotations

from pathlib import Path

from proxy_worker.mover.control import Control, Unattended
from proxy_worker.mover.copying import CopiedPoint, Copying
from proxy_worker.repository.credentials import KeyFile, make_key_file
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.twins import make_twin
from tests.repository.making import CHEAP, PASSPHRASE, back_up, make_repository, noise, text

YESTERDAY = noise(5, 1) + bytes(4 * 64 * 1024) + text(3)
TODAY = noise(2, 1) + noise(2, 2) + noise(6, 1)[4 * 64 * 1024 :] + bytes(3 * 64 * 1024) + text(3)
ONE_BLOCK = 64 * 1024


def make_source(folder: Path) -> Repository:
    """A repository with two restore points of one VM."""
    source = make_repository(folder)
    back_up(source, YESTERDAY, run="yesterday")
    back_up(source, TODAY, run="today")
    return source


def make_target(folder: Path, source: Repository, *, twin: bool) -> Repository:
    """An empty repository, with keys of its own or the source's."""
    if twin:
        return make_twin(LocalStore(folder), source, passphrase=PASSPHRASE, kdf_cost=CHEAP)
    return make_repository(folder)


def copy_point(source: Repository, target: Repository, point: Point, control: Control | None = None) -> CopiedPoint:
    """Copy one restore point."""
    return Copying(source, target, "source").copy(point, control=control or Unattended())


def copy_all(source: Repository, target: Repository) -> list[CopiedPoint]:
    """Copy every restore point, oldest first."""
    return [copy_point(source, target, point) for point in source.points()]


def write_key(repository: Repository) -> KeyFile:
    """What only adds to a repository, or to its twin."""
    assert repository.unlocked is not None
    return make_key_file(
        repository.unlocked,
        kind="write",
        repository_id=repository.id,
        generation=1,
        label="copier",
        group="default",
    )
