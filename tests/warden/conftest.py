"""One file system for each module, a folder on it for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.warden.vault import Clock, NearWarden, disk, folder_on


@pytest.fixture(scope="module")
def ext4() -> Iterator[Path]:
    with disk() as point:
        yield point


@pytest.fixture
def root(ext4: Path) -> Iterator[Path]:
    """The repository's folder."""
    with folder_on(ext4) as folder:
        yield folder


@pytest.fixture
def place() -> Iterator[Path]:
    """For settings, sockets and state: where others than root may look, with a short path."""
    with tempfile.TemporaryDirectory(prefix="vault-") as folder:
        yield Path(folder)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(root: Path, place: Path, clock: Clock) -> Iterator[Callable[[], NearWarden]]:
    """Starts a warden in this process, again with what the last one has left."""
    with ExitStack() as ending:

        def started() -> NearWarden:
            made = NearWarden(root, place, clock)
            ending.callback(made.close)
            return made

        yield started


@pytest.fixture
def warden(start: Callable[[], NearWarden]) -> NearWarden:
    return start()
