"""What a collector keeps for runs and readers that are at work, and how long it waits for them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.errors import PointNotFoundError, RunEndedError
from proxy_worker.repository.identity import Identity
from proxy_worker.repository.issuing import revoke
from proxy_worker.repository.registration import forget_writer
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import NOW, is_clean, packs
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    KEY,
    OTHER,
    SMALL,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
    write_disk,
)

_DAY_S = 24 * 3600.0


class Clock:
    """The time of day, to be set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.time", made)
    return made


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


def test_a_run_that_is_at_work_for_weeks_is_waited_for(repository: Repository, clock: Clock) -> None:
    with repository.begin_disk(vm_id=VM.vm_id, run="seed", disk_key=KEY, fence=1, limits=SMALL) as writer:
        segments = []
        for day in range(20):
            clock.now += _DAY_S
            segments += store_content(writer, noise(4, seed=day))
            writer.wait_durable(writer.mark())
            assert collect(repository).waiting_for == ("vm-1 seed",)
        size = 20 * 4 * BLOCK
        result = writer.finish(size_bytes=size, segments=segments, report=report_of(writer, size))

    point = commit(repository, result, run="seed")
    assert restore(repository, point) == b"".join(noise(4, seed=day) for day in range(20))
    assert list(repository.access.store.list("writers/")) == []


def test_a_run_is_at_work_also_where_it_finds_all_of_its_blocks_stored(
    repository: Repository, clock: Clock
) -> None:
    write_disk(repository, noise(4), run="other", vm=OTHER)
    with repository.begin_disk(vm_id=VM.vm_id, run="again", disk_key=KEY, fence=1) as writer:
        for _ in range(20):
            clock.now += _DAY_S
            writer.seal_checkpoint(b"so far")
        assert collect(repository).ended_runs == ("vm-2 other",)


def test_a_writer_that_is_forgotten_takes_no_other_ones_mark_along(repository: Repository, clock: Clock) -> None:
    access = repository.access
    for key, fence in (("a", 1), ("a.1", 2)):
        with repository.begin_disk(vm_id=VM.vm_id, run="copy", disk_key=key, fence=fence) as writer:
            clock.now += _DAY_S
            writer.seal_checkpoint(b"so far")

    forget_writer(access.store, vm_id=VM.vm_id, run="copy", disk_key="a", fence=1)

    left = [name.rpartition("/")[2] for name in access.store.list("writers/")]
    assert [name.partition("+")[0] for name in left] == ["a.1.2", "a.1.2"]


def test_a_run_whose_writers_clock_was_years_ahead_is_given_up(repository: Repository, clock: Clock) -> None:
    clock.now += 10_000 * _DAY_S
    write_disk(repository, noise(5), run="dead")
    clock.now -= 10_000 * _DAY_S

    assert collect(repository).ended_runs == ("vm-1 dead",)
    assert packs(repository) == set()


def test_a_run_goes_on_whose_writers_clock_was_set_right(repository: Repository, clock: Clock) -> None:
    clock.now += 10_000 * _DAY_S
    with repository.begin_disk(vm_id=VM.vm_id, run="fine", disk_key=KEY, fence=1, limits=SMALL) as writer:
        clock.now -= 10_000 * _DAY_S
        store_content(writer, noise(5))
        writer.wait_durable(writer.mark())

        assert collect(repository).waiting_for == ("vm-1 fine",)


@pytest.mark.parametrize("hurt", ["condemned/1", "awaited/1"])
def test_a_list_that_can_not_be_read_is_put_aside(repository: Repository, tmp_path: Path, hurt: str) -> None:
    """Nobody could write or collect any more; nothing goes by it, and the next collection looks anew."""
    result = write_disk(repository, noise(5), run="at-work")
    assert collect(repository).waiting_for == ("vm-1 at-work",)
    flip_a_bit(tmp_path / "repository" / hurt)

    report = collect(repository)
    assert (report.freed_packs, report.waiting_for) == (0, ("vm-1 at-work",))
    assert any(f"{hurt} " in note and "nothing goes by it" in note for note in report.notes), report.notes

    point = commit(repository, result, run="at-work")
    other = back_up(repository, noise(5, 2), run="later", vm=OTHER)
    collect(repository)
    assert (restore(repository, point), restore(repository, other)) == (noise(5), noise(5, 2))
    end_point(repository.access, vm_id="vm-1", run="at-work")
    assert collect(repository).freed_packs >= 1


def test_a_list_of_a_collector_whose_key_was_revoked_is_put_aside(repository: Repository, tmp_path: Path) -> None:
    unlocked = repository.unlocked
    assert unlocked
    key = make_key_file(
        unlocked, kind="read", repository_id=repository.id, generation=1, label="stolen", group="primary"
    )
    result = write_disk(repository, noise(5), run="at-work")
    with Repository.open(repository.access.store, Credential(key=key)) as stolen:
        assert collect(stolen).waiting_for == ("vm-1 at-work",)
    writer_id = Identity(key.writer_private_key, key.writer_certificate).body.writer_id.hex()
    revoke(repository.access, unlocked, writer_id, force=True)

    with Repository.open(repository.access.store, CREDENTIAL) as owner:
        with pytest.raises(DamageError, match=r"condemned/1.*repository collect"):
            write_disk(owner, noise(5, 2), run="next", vm=OTHER)
        assert [finding.name for finding in check(owner.access).findings] == ["condemned/1"]
        collect(owner)
        point = commit(owner, result, run="at-work")
        back_up(owner, noise(5, 2), run="after", vm=OTHER)
        collect(owner)
        assert restore(owner, point) == noise(5)
        assert is_clean(owner)


def test_what_was_settled_and_can_not_be_read_is_left_to_an_administrator(
    repository: Repository, tmp_path: Path
) -> None:
    """Another collector may be deleting just that, so it can't be settled otherwise."""
    point = back_up(repository, noise(5), run="stays")
    back_up(repository, noise(5, 2), run="goes")
    end_point(repository.access, vm_id="vm-1", run="goes")
    collect(repository)
    (tmp_path / "repository" / "condemned" / "1.done").unlink()
    flip_a_bit(tmp_path / "repository" / "doomed" / "1")

    with pytest.raises(DamageError, match=r"no collection runs.*remove this file"):
        collect(repository)
    (tmp_path / "repository" / "doomed" / "1").unlink()
    collect(repository)
    assert restore(repository, point) == noise(5)
    assert is_clean(repository)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


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


def test_a_reader_at_work_for_weeks_keeps_what_it_reads(repository: Repository, clock: Clock) -> None:
    point = back_up(repository, noise(5), run="old")
    with repository.reader(point) as reader:
        end_point(repository.access, vm_id="vm-1", run="old")
        ids = reader.segment_ids(reader.map(KEY).segments[0])
        for _ in range(20):
            clock.now += _DAY_S
            view = memoryview(bytearray(BLOCK))
            reader.read_blocks_into([ids[:32]], view)
            assert view == reader.read_block(ids[:32]) == noise(5)[:BLOCK]
            assert collect(repository).removed_points == 0
    assert list(repository.access.store.list("readers/")) == []


def test_a_readers_mark_of_years_to_come_does_not_count(repository: Repository, clock: Clock) -> None:
    point = back_up(repository, noise(5), run="old")
    clock.now += 10_000 * _DAY_S
    repository.reader(point)  # and its machine lost power
    clock.now -= 10_000 * _DAY_S
    end_point(repository.access, vm_id="vm-1", run="old")

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
