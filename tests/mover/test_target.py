"""What a disk is restored to appears complete, or not at all."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from proxy_worker.contract.errors import TargetError
from proxy_worker.mover.target import Target, TargetBusyError, TargetExistsError

CONTENT = bytes(range(256)) * 4096


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_under_its_name_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"

    with Target(path, len(CONTENT) + 5, overwrite=False) as target:
        target.write(0, memoryview(CONTENT))
        assert not path.exists()
        target.finish()

    assert path.read_bytes() == CONTENT + bytes(5)
    assert names(tmp_path) == ["disk.raw"]


def test_what_was_not_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    with Target(tmp_path / "disk.raw", 100, overwrite=False) as target:
        target.write(0, memoryview(b"x"))

    assert names(tmp_path) == []


def test_an_existing_path_is_refused_and_left_alone_unless_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"precious")

    with pytest.raises(TargetExistsError, match="--overwrite"):
        Target(path, 10, overwrite=False)
    assert path.read_bytes() == b"precious"

    with Target(path, 3, overwrite=True) as target:
        target.write(0, memoryview(b"new"))
        target.finish()
    assert path.read_bytes() == b"new"


def test_a_path_that_appears_during_the_restore_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"

    with Target(path, 3, overwrite=False) as target:
        path.write_bytes(b"precious")
        with pytest.raises(TargetExistsError):
            target.finish()

    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["disk.raw"]


def test_two_restores_to_one_path_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"

    with Target(path, 3, overwrite=False) as first:
        with pytest.raises(TargetBusyError, match="another restore"):
            Target(path, 3, overwrite=False)
        first.write(0, memoryview(b"one"))
        first.finish()

    assert path.read_bytes() == b"one"


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "disk.raw.partial").symlink_to(victim)

    with pytest.raises(TargetError):
        Target(tmp_path / "disk.raw", 100, overwrite=False)

    assert victim.read_bytes() == b"precious"


def test_a_restore_that_comes_just_when_another_finishes_does_not_harm_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk.raw"
    first = Target(path, len(CONTENT), overwrite=True)
    first.write(0, memoryview(CONTENT))
    lock = fcntl.flock

    def finish_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.finish()
        first.close()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with pytest.raises(TargetBusyError):
        Target(path, len(CONTENT), overwrite=True)

    assert path.read_bytes() == CONTENT


def test_what_an_interrupted_restore_left_is_not_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "disk.raw.partial").write_bytes(b"\xff" * 4096)

    with Target(tmp_path / "disk.raw", 4096, overwrite=False) as target:
        target.write(1, memoryview(b"x"))
        target.finish()

    assert (tmp_path / "disk.raw").read_bytes() == b"\0x" + bytes(4094)


@pytest.mark.parametrize("name", ["missing/disk.raw", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(TargetError, match=name):
        Target(tmp_path / name, 10, overwrite=False)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"there is no folder .*gone\. Make it"):
        Target(tmp_path / "gone" / "disk.raw", 100, overwrite=False)
