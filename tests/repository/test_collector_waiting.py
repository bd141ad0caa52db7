"""What a collector keeps for runs and readers that are at work, and how long it waits for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.repository.collector import collect
from proxy_worker.repository.errors import PointNotFoundError, RunEndedError
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import NOW, is_clean, packs
from tests.repository.making import (
    BLOCK,
    KEY,
    OTHER,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    write_disk,
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def test_a_run_at_work_is_waited_for_and_what_it_needs_is_rescued(repository: Repository) -> None:
    result = write_disk(repository, noise(5), run="at-work")

    waiting = collect(repository)
    assert waiting.waiting_for == ("vm-1 at-work",)
    assert waiting.freed_packs == 0
    assert any("until 1 runs have ended" in kept.why for kept in waiting.kept)

    point = commit(repository, result, run="at-work")
    done = collect(repository)
    assert (done.waiting_for, done.freed_packs) == ((), 0)
    assert done.rescued_packs >= 2
    assert restore(repository, point) == noise(5)
    assert set(repository.access.store.list("condemned/")) >= {"condemned/1", "condemned/1.done"}


def test_runs_that_begin_later_are_not_waited_for(repository: Repository) -> None:
    back_up(repository, noise(5, 1), run="old")
    end_point(repository.access, vm_id="vm-1", run="old")
    first = write_disk(repository, noise(3, 2), run="first")
    assert collect(repository).waiting_for == ("vm-1 first",)

    later = write_disk(repository, noise(5, 1), run="later", vm=OTHER)  # keeps away from what is condemned
    commit(repository, first, run="first")
    report = collect(repository)

    assert report.freed_packs >= 1
    point = commit(repository, later, run="later", vm=OTHER)
    assert restore(repository, point) == noise(5, 1)
    collect(repository)
    assert restore(repository, point) == noise(5, 1)
    assert is_clean(repository)


def test_a_run_that_never_ends_is_given_up_after_a_while(repository: Repository) -> None:
    result = write_disk(repository, noise(5), run="dead")

    report = collect(repository, NOW)

    assert report.ended_runs == ("vm-1 dead",)
    assert packs(repository) == set()
    with pytest.raises(RunEndedError):
        commit(repository, result, run="dead")
    assert list(repository.access.store.list("writers/")) == []


def test_a_child_of_a_point_that_came_and_went_while_a_list_was_open_stays_whole(repository: Repository) -> None:
    """The parent referred to condemned packs, and had ended by the time the collector looked again."""
    parent_result = write_disk(repository, noise(5), run="parent")
    assert collect(repository).waiting_for == ("vm-1 parent",)
    parent_point = commit(repository, parent_result, run="parent")
    with repository.begin_disk(vm_id=VM.vm_id, run="child", disk_key=KEY, fence=1) as writer:
        parent = writer.parent(parent_point, KEY)
        assert parent is not None
        end_point(repository.access, vm_id="vm-1", run="parent")
        collect(repository)
        result = writer.finish(size_bytes=5 * BLOCK, segments=parent.segments, report=report_of(writer, 5 * BLOCK))
    child = commit(repository, result, run="child")

    assert restore(repository, child) == noise(5)
    collect(repository)
    assert restore(repository, child) == noise(5)
    assert is_clean(repository)


def test_a_reader_keeps_what_it_reads_of_an_ended_point(repository: Repository) -> None:
    point = back_up(repository, noise(5), run="old")
    with repository.reader(point) as reader:
        end_point(repository.access, vm_id="vm-1", run="old")
        collect(repository)
        ids = reader.segment_ids(reader.map(KEY).segments[0])
        view = memoryview(bytearray(BLOCK))
        reader.read_blocks_into([ids[:32]], view)
        assert view == noise(5)[:BLOCK]

    assert collect(repository).removed_points == 1
    assert packs(repository) == set()


def test_readers_of_ended_points_are_turned_away(repository: Repository) -> None:
    point = back_up(repository, noise(5), run="old")
    end_point(repository.access, vm_id="vm-1", run="old")

    with pytest.raises(PointNotFoundError):
        repository.reader(point)
    assert list(repository.access.store.list("readers/")) == []


def test_what_is_no_writers_mark_is_not_waited_for(repository: Repository) -> None:
    result = write_disk(repository, noise(2), run="one")
    commit(repository, result, run="one")
    for name in ("writers/x", "writers/vm-1/one", "writers/a/b/c/d"):
        repository.access.store.put_if_absent(name, [b"rubbish"])
    assert collect(repository).waiting_for == ()
