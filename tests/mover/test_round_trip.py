"""What is restored is what was backed up, whatever the disk's size, content and history."""

from __future__ import annotations

import filecmp
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.mover.sampling import AT_LEAST
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.mover.disks import BLOCK, KEY, SEGMENT, back_up, data_of, make_disk, new_vm, request, restore

ROUND_TRIPS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

History = tuple[int, list[list[tuple[int, bytes]]]]
"""A disk's size, and what was written to it on each day."""

sizes = st.one_of(
    st.sampled_from([0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17]), st.integers(0, 40 * BLOCK)
)
contents = st.sampled_from(["zeros", "text", "random", "same"])


def content(kind: str, length: int, seed: int) -> bytes:
    chance = random.Random(seed)
    match kind:
        case "zeros":
            return bytes(length)
        case "text":
            return b"".join(b"%08x line of text\n" % chance.getrandbits(32) for _ in range(length // 22 + 1))[
                :length
            ]
        case "random":
            return chance.randbytes(length)
        case _:
            return (b"the same everywhere " * (length // 20 + 1))[:length]


@st.composite
def pieces(draw: st.DrawFn, size: int) -> list[tuple[int, bytes]]:
    found = []
    for _ in range(draw(st.integers(0, 5)) if size else 0):
        offset = draw(st.integers(0, size - 1))
        length = draw(st.integers(1, min(size - offset, 9 * BLOCK)))
        found.append((offset, content(draw(contents), length, draw(st.integers(0, 3)))))
    return found


@st.composite
def histories(draw: st.DrawFn) -> History:
    size = draw(sizes)
    return size, [draw(pieces(size)) for _ in range(draw(st.integers(1, 3)))]


def segments(repository: Repository, point: Point) -> tuple[bytes, ...]:
    with repository.reader(point) as reader:
        return tuple(reader.map(KEY).segments)


@ROUND_TRIPS
@given(histories())
def test_every_point_of_a_disk_restores_to_what_it_was(
    repository: Repository,
    tmp_path_factory: pytest.TempPathFactory,
    history: tuple[int, list[list[tuple[int, bytes]]]],
) -> None:
    size, days = history
    folder = tmp_path_factory.mktemp("days")
    by_digests, by_areas = new_vm(), new_vm()
    written: list[tuple[int, bytes]] = []
    for number, changes in enumerate(days):
        written += changes
        disk = make_disk(folder / f"{number}.raw", size, written)

        point, report = back_up(repository, disk, request(by_digests))
        areas = [(offset, len(data)) for offset, data in changes] if number else None
        other, other_report = back_up(repository, disk, request(by_areas, areas=areas))

        back = folder / "back.raw"
        restore(repository, point, back, overwrite=True)
        assert filecmp.cmp(back, disk, shallow=False)
        assert segments(repository, point) == segments(repository, other), "areas and digests give the same map"
        assert report.size_bytes == size
        assert other_report.full_read_reason is None
        known = report.zero_bytes + report.unchanged_bytes + report.duplicate_bytes
        assert 0 <= known <= size


def test_a_disk_of_two_tebibytes_with_little_in_it(repository: Repository, tmp_path: Path) -> None:
    size = 2 << 40
    places = [0, 1 << 30, (1 << 40) + 12345, size - 3 * BLOCK - 7]
    disk = make_disk(tmp_path / "huge.raw", size, [(at, content("text", 150_000, at)) for at in places])

    point, report = back_up(repository, disk, request(new_vm()))
    restore(repository, point, tmp_path / "back.raw")

    assert (tmp_path / "back.raw").stat().st_size == size
    assert list(data_of(tmp_path / "back.raw")) == list(data_of(disk))
    assert report.read_bytes < 2 << 20
    assert (tmp_path / "back.raw").stat().st_blocks * 512 < 4 << 20, "zeros are not written"


def test_incompressible_blocks_are_stored_as_they_are(repository: Repository, tmp_path: Path) -> None:
    data = os.urandom(40 * BLOCK)
    disk = make_disk(tmp_path / "random.raw", len(data), [(0, data)])

    point, report = back_up(repository, disk, request(new_vm(), level=CompressionLevel.EXTREME))
    restore(repository, point, tmp_path / "back.raw")

    assert len(data) < report.stored_bytes < len(data) * 1.01
    assert (tmp_path / "back.raw").read_bytes() == data


@pytest.mark.parametrize("level", list(CompressionLevel))
def test_every_level_restores(repository: Repository, tmp_path: Path, level: CompressionLevel) -> None:
    data = content("text", 5 * BLOCK, hash(level) & 0xFFFF)
    disk = make_disk(tmp_path / "disk.raw", len(data), [(0, data)])

    point, _ = back_up(repository, disk, request(new_vm(), level=level))
    restore(repository, point, tmp_path / "back.raw")

    assert (tmp_path / "back.raw").read_bytes() == data


class TestChangedAreas:
    """Areas save reading only where they can be trusted."""

    @pytest.fixture
    def day_one(self, repository: Repository, tmp_path: Path) -> tuple[VmIdentity, Path, Point]:
        disk = make_disk(tmp_path / "disk.raw", 300 * BLOCK, [(0, content("random", 300 * BLOCK, 7))])
        vm = new_vm()
        return vm, disk, back_up(repository, disk, request(vm))[0]

    def test_only_touched_blocks_and_a_small_sample_are_read(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, first = day_one

        _, report = back_up(repository, disk, request(vm, areas=[(0, 1), (100 * BLOCK - 1, 50 * BLOCK)]))

        assert 52 * BLOCK <= report.read_bytes <= 52 * BLOCK * 1.1
        assert report.parent == first.run
        assert report.stored_bytes < BLOCK

    def test_untouched_segments_are_kept(self, repository: Repository, tmp_path: Path) -> None:
        disk = make_disk(tmp_path / "disk.raw", 3 * SEGMENT, [(i * SEGMENT, b"%d" % i) for i in range(3)])
        vm = new_vm()
        first, _ = back_up(repository, disk, request(vm))
        with disk.open("r+b") as file:
            file.seek(SEGMENT + 5)
            file.write(b"changed")

        second, report = back_up(repository, disk, request(vm, areas=[(SEGMENT + 5, 7)]))

        before, after = segments(repository, first), segments(repository, second)
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
        assert report.unchanged_bytes == 3 * SEGMENT - BLOCK

    def test_a_named_parent_is_compared_with(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, first = day_one
        with disk.open("r+b") as file:
            file.write(b"day two")
        back_up(repository, disk, request(vm))

        point, report = back_up(repository, disk, request(vm, parent=first.run, areas=[(0, 7)]))

        assert report.parent == first.run
        restore(repository, point, disk.with_suffix(".back"))
        assert filecmp.cmp(disk.with_suffix(".back"), disk, shallow=False)

    def test_a_missing_parent_has_the_disk_read_whole_and_says_so(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one

        _, report = back_up(repository, disk, request(vm, parent="20200101T000000Z-00000000", areas=[(0, 7)]))

        assert report.read_bytes == 300 * BLOCK
        assert "20200101T000000Z-00000000 is not in the repository" in str(report.full_read_reason)

    def test_without_any_point_the_disk_is_read_whole_and_says_so(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        _, disk, _ = day_one

        _, report = back_up(repository, disk, request(new_vm(), areas=[(0, 7)]))

        assert report.read_bytes == 300 * BLOCK
        assert "no restore point of this VM" in str(report.full_read_reason)

    def test_a_parent_of_another_size_has_the_disk_read_whole_and_says_so(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one
        with disk.open("r+b") as file:
            file.truncate(301 * BLOCK)

        point, report = back_up(repository, disk, request(vm, areas=[(0, 7)]))

        assert f"was {300 * BLOCK}" in str(report.full_read_reason)
        assert report.unchanged_bytes == 300 * BLOCK, "its digests are still compared"
        restore(repository, point, disk.with_suffix(".back"))
        assert filecmp.cmp(disk.with_suffix(".back"), disk, shallow=False)

    @pytest.mark.parametrize("fate", ["damaged", "removed"])
    def test_areas_relative_to_a_newer_point_that_is_gone_are_not_applied_to_an_older_one(
        self, tmp_path: Path, fate: str
    ) -> None:
        store = LocalStore(tmp_path)
        repository = Repository.create(store, passphrase=None, block_size=BLOCK)
        vm, disk = new_vm(), make_disk(tmp_path / "disk.raw", 64 * BLOCK, [(0, content("random", 64 * BLOCK, 1))])
        back_up(repository, disk, request(vm, run="20260101T000000Z-00000001"))
        _overwrite(disk, 3, 2)
        newest, _ = back_up(repository, disk, request(vm, run="20260102T000000Z-00000002"))
        if fate == "damaged":
            _overwrite(tmp_path / f"points/{vm.vm_id}/{newest.run}", 0, 3, length=40)
        else:
            store.put_if_absent(f"ended/{vm.vm_id}/{newest.run}", [b""])
        _overwrite(disk, 9, 4)

        point, report = back_up(repository, disk, request(vm, areas=[(9 * BLOCK, BLOCK)]))

        assert fate in str(report.full_read_reason)
        restore(repository, point, tmp_path / "back")
        assert filecmp.cmp(tmp_path / "back", disk, shallow=False)

    def test_areas_beyond_the_end_are_not_trusted(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one

        _, report = back_up(repository, disk, request(vm, areas=[(299 * BLOCK, 2 * BLOCK)]))

        assert "beyond the disk's end" in str(report.full_read_reason)

    def test_areas_that_hide_changes_are_found_out_by_the_sample(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one
        with disk.open("r+b") as file:
            file.seek(200 * BLOCK)
            file.write(content("random", 100 * BLOCK, 8))

        point, report = back_up(repository, disk, request(vm, areas=[(0, 200 * BLOCK)]))

        assert "can't be trusted" in str(report.full_read_reason)
        assert "no changed area names it" in str(report.alarm)
        restore(repository, point, disk.with_suffix(".back"))
        assert filecmp.cmp(disk.with_suffix(".back"), disk, shallow=False)

    def test_vspheres_areas_cost_the_stated_sample_and_raise_no_alarm(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one
        _overwrite(disk, 9, 4)

        _, report = back_up(repository, disk, request(vm, areas=[(9 * BLOCK, BLOCK)], tracked=True))

        assert report.read_bytes == (1 + AT_LEAST) * BLOCK
        assert report.alarm is None

    def test_the_inventorys_reason_for_a_full_read_is_reported(
        self, repository: Repository, day_one: tuple[VmIdentity, Path, Point]
    ) -> None:
        vm, disk, _ = day_one
        asked = request(vm).model_copy(update={"full_read_reason": "changed block tracking was reset"})

        _, report = back_up(repository, disk, asked)

        assert report.full_read_reason == "changed block tracking was reset"


def _overwrite(path: Path, block: int, seed: int, *, length: int = BLOCK) -> None:
    with path.open("r+b") as file:
        file.seek(block * BLOCK)
        file.write(content("random", length, seed))
