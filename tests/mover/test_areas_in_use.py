"""A disk that is read whole: only what vSphere calls in use is read, and a sample of the rest."""

from __future__ import annotations

import filecmp
import random
from pathlib import Path

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.sampling import AT_LEAST
from proxy_worker.repository.repository import Repository
from tests.mover.disks import BLOCK, back_up, make_disk, new_vm, request, restore

BLOCKS = 300


def thick_disk(path: Path, *used: int) -> Path:
    """A disk of 300 blocks whose file has no holes, with something in some of them."""
    chance = random.Random(1)
    path.write_bytes(b"".join(chance.randbytes(BLOCK) if at in used else bytes(BLOCK) for at in range(BLOCKS)))
    return path


def asked(*areas: tuple[int, int]) -> DiskBackup:
    """A first backup, told (block, blocks) that are in use."""
    in_use = tuple(Extent(offset=first * BLOCK, length=count * BLOCK) for first, count in areas)
    return request(new_vm(), tracked=True).model_copy(update={"areas_in_use": in_use})


def test_only_areas_in_use_and_a_sample_of_the_rest_are_read(repository: Repository, tmp_path: Path) -> None:
    disk = thick_disk(tmp_path / "disk", 3, 4, 250)

    point, report = back_up(repository, disk, asked((3, 2), (250, 1)))

    assert report.read_bytes == (3 + AT_LEAST) * BLOCK
    assert report.alarm is None
    restore(repository, point, tmp_path / "back")
    assert filecmp.cmp(tmp_path / "back", disk, shallow=False)


def test_what_the_source_knows_to_be_a_hole_is_not_read_though_vsphere_calls_it_in_use(
    repository: Repository, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", BLOCKS * BLOCK, [(0, b"x" * BLOCK)])

    _, report = back_up(repository, disk, asked((0, 200)))

    assert report.read_bytes <= 2 * BLOCK


def test_areas_that_hide_data_are_found_out_and_raise_an_alarm(repository: Repository, tmp_path: Path) -> None:
    disk = thick_disk(tmp_path / "disk", *range(100, 300))

    point, report = back_up(repository, disk, asked((0, 100)))

    assert "isn't zeros although no area in use names it" in str(report.alarm)
    assert "can't be trusted" in str(report.full_read_reason)
    restore(repository, point, tmp_path / "back")
    assert filecmp.cmp(tmp_path / "back", disk, shallow=False)


def test_areas_beyond_the_end_are_not_used(repository: Repository, tmp_path: Path) -> None:
    disk = thick_disk(tmp_path / "disk", 5)

    _, report = back_up(repository, disk, asked((0, BLOCKS + 1)))

    assert "beyond the disk's end" in str(report.full_read_reason)
    assert report.read_bytes == BLOCKS * BLOCK
