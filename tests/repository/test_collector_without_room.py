"""A collector whose file system is full while it rewrites packs: a real one, of 16 MiB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.store import StoreFullError
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import is_clean, packs
from tests.repository.making import BLOCK, SMALL, VM, back_up, make_repository, noise, restore
from tests.simulators.loop_devices import mounted

SETTINGS = CollectorSettings(pack_bytes=SMALL.pack_bytes)
OLD = noise(36)
NEW = b"".join(OLD[at : at + BLOCK] for at in range(0, len(OLD), 3 * BLOCK))
"""One block of each pack that `OLD` comes to."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that only the repository is in."""
    with mounted("ext4", tmp_path) as point:
        yield point


def fill(disk: Path, room_bytes: int) -> Path:
    """Leave so much room, to the block; returns the file that has the rest."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        size, step = 0, 1 << 20
        while step >= os.statvfs(disk).f_frsize:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
        file.truncate(size - room_bytes)
        os.fsync(file.fileno())
    return ballast


@pytest.mark.parametrize("room_bytes", [0, SMALL.pack_bytes + 2 * BLOCK], ids=["for nothing", "for one pack"])
def test_a_disk_that_fills_up_while_packs_are_rewritten_loses_nothing(disk: Path, room_bytes: int) -> None:
    with make_repository(disk / "repository") as repository:
        back_up(repository, OLD, run="old")
        kept = back_up(repository, NEW, run="new")
        end_point(repository.access, vm_id=VM.vm_id, run="old")
        before = packs(repository)
        ballast = fill(disk, room_bytes)

        with pytest.raises(StoreFullError, match=r"can't write packs/.*No space left on device.*Free space"):
            collect(repository, SETTINGS)

        assert before <= packs(repository), "their chunks aren't anywhere else for sure"
        assert (len(packs(repository)) > len(before)) == bool(room_bytes)
        assert list(repository.access.store.leftovers()) == [], "what takes room that there isn't"
        assert check(repository.access).findings == ()
        assert restore(repository, kept) == NEW

        ballast.unlink()
        report = collect(repository, SETTINGS)

        assert (report.rewritten_packs > 0, report.waiting_for) == (True, ())
        assert sum(one.size_bytes for one in report.kept if "dead" in one.why) == 0
        assert is_clean(repository)
        assert restore(repository, kept) == NEW
