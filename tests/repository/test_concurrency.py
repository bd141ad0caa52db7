"""The table of what may happen at the same time, cell by cell.

What a collector does is done here by hand, with the objects that writers and readers heed; the collector itself is
tested in `test_collector*.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.errors import PointNotFoundError, RunEndedError
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.registration import encode_condemned
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Store
from tests.repository.collecting import condemn, end, move_chunks, withdraw
from tests.repository.faulty_store import FaultyStore
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    KEY,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
    text,
    write_disk,
)

CONTENT = noise(5)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def writers(repository: Repository) -> set[str]:
    return set(repository.access.store.list("writers/"))


def test_write_and_write_use_packs_of_their_own(repository: Repository) -> None:
    start = threading.Barrier(4)

    def one(number: int) -> bytes:
        vm = VmIdentity(vm_id=f"vm-{number}", name=f"web{number}")
        content = CONTENT + noise(2, 100 + number)
        start.wait()
        point = back_up(repository, content, run=f"run-{number}", vm=vm)
        return content if restore(repository, point) == content else b""

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(one, range(4)))
    assert check(repository.access).findings == ()


def test_write_and_commit_use_names_of_their_own(repository: Repository) -> None:
    with repository.begin_disk(vm_id=VM.vm_id, run="later", disk_key=KEY, fence=1) as writer:
        segments = store_content(writer, text(3))
        back_up(repository, CONTENT, run="sooner")
        assert writers(repository) == {f"writers/vm-1/later/{KEY}.1"}
        result = writer.finish(size_bytes=3 * BLOCK, segments=segments, report=report_of(writer, 3 * BLOCK))
    later = commit(repository, result, run="later")

    assert [point.run for point in repository.points()] == ["sooner", "later"]
    assert restore(repository, later) == text(3)


def test_write_and_collect_condemned_packs_are_not_named_anew(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    condemn(repository, 1, pack_ids(repository.access.store))

    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        assert not writer.has(writer.identify(CONTENT[:BLOCK]))


def test_write_and_collect_a_list_that_is_done_condemns_nothing(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    condemn(repository, 1, pack_ids(repository.access.store), done=True)

    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        assert writer.has(writer.identify(CONTENT[:BLOCK]))


def test_write_and_collect_a_pack_counts_only_if_it_is_still_there(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    for pack_id in list(pack_ids(repository.access.store)):
        repository.access.store.delete(pack_name(pack_id))

    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        assert not writer.has(writer.identify(CONTENT[:BLOCK]))


def test_write_and_collect_an_unreadable_list_stops_the_writer(repository: Repository) -> None:
    """What is condemned can't be known, so nothing may be written."""
    repository.access.store.put_if_absent("condemned/1", [encode_condemned(repository.access.sealer, 2, [])])

    with pytest.raises(DamageError, match="condemned/1"):
        repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1)


def test_write_and_collect_a_parent_counts_only_if_its_point_is_there_after_registering(
    repository: Repository,
) -> None:
    deleted, ended, kept = (back_up(repository, CONTENT, run=run) for run in ("deleted", "ended", "kept"))
    repository.access.store.delete("points/vm-1/deleted")
    end(repository, "ended")

    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        assert writer.parent(deleted, KEY) is None
        assert writer.parent(ended, KEY) is None
        parent = writer.parent(kept, KEY)
        assert parent is not None
        assert parent.size_bytes == len(CONTENT)
        assert writer.parent(kept, "scsi0:1") is None


def test_write_and_collect_the_mark_stays_until_the_run_has_ended(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    assert writers(repository) == {f"writers/vm-1/run-1/{KEY}.1"}

    commit(repository, result, run="run-1")
    assert writers(repository) == set()


def test_write_and_restore(repository: Repository) -> None:
    point = back_up(repository, CONTENT, run="old")
    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        store_content(writer, text(3))

        assert restore(repository, point) == CONTENT


def test_write_and_verify(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        store_content(writer, text(3))
        writer.wait_durable(writer.mark())
        store_content(writer, noise(3, 7))

        report = check(repository.access)
    assert (report.findings, report.points) == ((), 1)


def test_write_and_write_a_long_writer_lets_go_of_runs_that_were_merged(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a file open: a disk of many terabytes would come to more than a process may have."""
    monkeypatch.setattr("proxy_worker.repository.writer._REMEMBERED_IDS", 1)
    with repository.begin_disk(vm_id=VM.vm_id, run="new", disk_key=KEY, fence=1) as writer:
        for number in range(12):
            store_content(writer, noise(2, number))
            writer.wait_durable(writer.mark())
            assert writer.has(writer.identify(noise(1, 0)))
        held = {run.path.name for run in writer._usable_packs}

    assert held <= {run.path.name for run in repository.access.index.runs}


class BusyStore(FaultyStore):
    """Does something else first, the first time that points are listed."""

    def __init__(self, store: Store, first: Callable[[], object]) -> None:
        super().__init__(store)
        self._first: list[Callable[[], object]] = [first]

    def list(self, prefix: str) -> Iterator[str]:
        if prefix == "points/" and self._first:
            self._first.pop()()
        return super().list(prefix)


def test_write_and_verify_a_point_that_is_committed_meanwhile_is_whole(repository: Repository) -> None:
    store = BusyStore(repository.access.store, lambda: back_up(repository, noise(3, 9), run="meanwhile"))
    with Repository.open(store, CREDENTIAL) as checker:
        report = check(checker.access)

    assert (report.findings, report.points, report.notes) == ((), 1, ())


def test_commit_and_commit_give_one_point(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    start = threading.Barrier(4)

    def one(_: int) -> bytes:
        start.wait()
        return commit(repository, result, run="run-1").token

    with ThreadPoolExecutor(4) as threads:
        tokens = set(threads.map(one, range(4)))
    assert tokens == {point.token for point in repository.points()}
    assert len(tokens) == 1


def test_commit_and_commit_of_other_content_is_refused(repository: Repository) -> None:
    """Two attempts at one disk, of which a frozen one wakes up late: the first to be committed stays."""
    stale = write_disk(repository, text(2), run="run-1", fence=1)
    fresh = write_disk(repository, CONTENT, run="run-1", fence=2)
    commit(repository, fresh, run="run-1", fence=2)

    with pytest.raises(RunEndedError, match="committed with other disks"):
        commit(repository, stale, run="run-1", fence=1)
    assert restore(repository, repository.point("vm-1", "run-1")) == CONTENT


def test_commit_of_a_point_that_is_marked_as_removed_is_no_success(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    repository.access.store.put_if_absent("ended/vm-1/run-1", [b"put by somebody who may write here"])
    with pytest.raises(RunEndedError, match="marked as removed"):
        commit(repository, result, run="run-1")
    assert not repository.abandon(vm_id="vm-1", run="run-1", reason="it failed"), "no point that counts is there"
    assert repository.points() == []


def test_commit_takes_only_the_result_of_the_fence_that_finished(repository: Repository) -> None:
    stale = write_disk(repository, text(2), run="run-1", fence=1)

    with pytest.raises(DamageError, match="fence 1"):
        commit(repository, stale, run="run-1", fence=2)


def test_commit_takes_no_result_of_another_run_or_disk(repository: Repository) -> None:
    other = write_disk(repository, text(2), run="run-2")

    with pytest.raises(DamageError, match="sealed as something else"):
        commit(repository, other, run="run-1")
    with pytest.raises(DamageError, match="sealed as something else"):
        commit(repository, other, run="run-2", key="scsi0:1")


def test_commit_and_collect_one_name_and_the_first_wins(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    assert not repository.abandon(vm_id="vm-1", run="run-1", reason="a collector waited long enough")

    with pytest.raises(RunEndedError, match="abandoned"):
        commit(repository, result, run="run-1")
    with pytest.raises(RunEndedError):
        repository.begin_disk(vm_id="vm-1", run="run-1", disk_key=KEY, fence=2)
    assert repository.points() == []
    assert writers(repository) == set()


def test_collect_and_commit_a_tombstone_that_comes_late_changes_nothing(repository: Repository) -> None:
    point = back_up(repository, CONTENT, run="run-1")

    assert repository.abandon(vm_id="vm-1", run="run-1", reason="too late")
    assert restore(repository, point) == CONTENT


def test_commit_refuses_what_is_not_there(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    for pack_id in list(pack_ids(repository.access.store)):
        repository.access.store.delete(pack_name(pack_id))

    with pytest.raises(DamageError, match="missing"):
        commit(repository, result, run="run-1")
    assert repository.points() == []


def test_commit_looks_for_every_segment_in_a_pack_that_is_there(repository: Repository) -> None:
    """That one segment has another copy says nothing of its neighbours in a lost pack."""
    back_up(repository, text(16), run="old")
    condemn(repository, 1, pack_ids(repository.access.store))  # so that the next run stores all of it again
    old_packs = set(pack_ids(repository.access.store))
    with repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1) as writer:
        segments = store_content(writer, text(16) + noise(4))
        writer.wait_durable(writer.mark())
        [lost] = set(pack_ids(repository.access.store)) - old_packs
        result = writer.finish(size_bytes=20 * BLOCK, segments=segments, report=report_of(writer, 20 * BLOCK))
    repository.access.store.delete(pack_name(lost))

    with pytest.raises(DamageError, match="segment"):
        commit(repository, result, run="run-1")


def test_commit_and_restore_nothing_shows_before_the_point(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    with pytest.raises(PointNotFoundError):
        repository.point("vm-1", "run-1")

    commit(repository, result, run="run-1")
    assert restore(repository, repository.point("vm-1", "run-1")) == CONTENT


def test_commit_and_verify_all_or_nothing(repository: Repository) -> None:
    result = write_disk(repository, CONTENT, run="run-1")
    assert check(repository.access).points == 0

    commit(repository, result, run="run-1")
    assert check(repository.access).points == 1


def test_collect_and_restore_readers_leave_a_mark_that_names_the_point(repository: Repository) -> None:
    store = repository.access.store
    with repository.reader(back_up(repository, CONTENT, run="run-1")):
        [name] = store.list("readers/")
        payload, _ = repository.access.sealer.open_object(name, store.get(name))
        assert msgspec.msgpack.decode(payload)[:2] == ["vm-1", "run-1"]
    assert list(store.list("readers/")) == []


def test_collect_and_restore_a_reader_follows_chunks_that_have_moved(repository: Repository) -> None:
    """A collector moves chunks to another pack without decrypting them; a reader at work reloads the index."""
    point = back_up(repository, CONTENT, run="run-1")
    with repository.reader(point) as reader:
        move_chunks(repository)
        ids = reader.segment_ids(reader.map(KEY).segments[0])
        view = bytearray(4 * BLOCK)
        reader.read_blocks_into([ids[at : at + 32] for at in range(0, len(ids), 32)], memoryview(view))
        assert view == CONTENT[: 4 * BLOCK]
    assert restore(repository, point) == CONTENT


def test_collect_and_restore_a_lost_pack_is_named(repository: Repository) -> None:
    point = back_up(repository, CONTENT, run="run-1")
    [*packs] = pack_ids(repository.access.store)
    with repository.reader(point) as reader:
        ids = reader.segment_ids(reader.map(KEY).segments[0])
        for pack_id in packs:
            repository.access.store.delete(pack_name(pack_id))

        with pytest.raises(DamageError, match=r"packs/.*missing"):
            reader.read_blocks_into([ids[:32]], memoryview(bytearray(BLOCK)))


def test_collect_and_restore_points_that_retention_has_ended_are_not_offered(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    back_up(repository, CONTENT, run="new")
    end(repository, "old")

    assert [point.run for point in repository.points()] == ["new"]
    with pytest.raises(PointNotFoundError):
        repository.point("vm-1", "old")


def test_collect_and_verify_moved_and_deleted_packs_are_no_damage(repository: Repository) -> None:
    back_up(repository, CONTENT, run="old")
    move_chunks(repository)
    back_up(repository, text(3), run="new")
    end(repository, "new")
    withdraw(repository, "new")

    report = check(repository.access)
    assert (report.findings, report.points) == ((), 1)
