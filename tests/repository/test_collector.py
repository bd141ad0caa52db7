"""What a collector frees, what it keeps, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.contract.errors import CancelledError, DamageError
from proxy_worker.repository.collector import CollectionReport, CollectorSettings, collect
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import condemn, is_clean, packs
from tests.repository.making import (
    BLOCK,
    KEY,
    OTHER,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
    text,
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def size_of(repository: Repository) -> int:
    store = repository.access.store
    return sum(store.size(pack_name(pack_id)) for pack_id in packs(repository))


def test_nothing_to_do_changes_nothing(repository: Repository) -> None:
    back_up(repository, noise(5), run="only")
    before = set(repository.access.store.list("packs/")) | set(repository.access.store.list("index/"))

    report = collect(repository)

    assert (report.points, report.freed_packs, report.rewritten_packs) == (1, 0, 0)
    assert before == set(repository.access.store.list("packs/")) | set(repository.access.store.list("index/"))
    assert [kept.why for kept in report.kept] == ["restore points need all of them"]
    assert list(repository.access.store.list("condemned/")) == []


def test_what_only_an_ended_point_needed_goes(repository: Repository) -> None:
    back_up(repository, noise(6, 1), run="old")
    new = back_up(repository, noise(6, 2), run="new")
    full = size_of(repository)
    end_point(repository.access, vm_id="vm-1", run="old")

    report = collect(repository)

    assert report.freed_packs >= 2
    assert report.freed_bytes == full - size_of(repository) > 5 * BLOCK
    assert restore(repository, new) == noise(6, 2)
    assert is_clean(repository)


def test_ending_a_point_removes_one_object_and_hurts_no_other(repository: Repository) -> None:
    content = noise(4)
    back_up(repository, content, run="first")
    second = back_up(repository, content + noise(2, 2), run="second")
    before = set(repository.access.store.list("points/"))

    assert end_point(repository.access, vm_id="vm-1", run="first")
    assert end_point(repository.access, vm_id="vm-1", run="first")
    assert not end_point(repository.access, vm_id="vm-1", run="never")

    assert before - set(repository.access.store.list("points/")) == {"points/vm-1/first"}
    assert restore(repository, second) == content + noise(2, 2)
    with pytest.raises(PointNotFoundError):
        repository.point("vm-1", "first")


@pytest.mark.parametrize("later", ["2026", "2028"], ids=["clock went back", "clock is right"])
def test_a_later_point_that_ended_is_known_whatever_the_clock_said(repository: Repository, later: str) -> None:
    """Changed areas may be relative to it: applied to the one before, they would leave out what it changed."""
    back_up(repository, noise(4), run="2027")
    back_up(repository, noise(4, 2), run=later)
    end_point(repository.access, vm_id="vm-1", run=later)

    [left] = repository.points("vm-1")
    assert repository.newer_than(left) == f"restore point {later} was removed"
    back_up(repository, noise(4, 3), run="2029")
    assert repository.newer_than(repository.points("vm-1")[-1]) is None


def blind(repository: Repository) -> Repository:
    """The same with a write key."""
    unlocked = repository.unlocked
    assert unlocked is not None
    key = make_key_file(
        unlocked, kind="write", repository_id=repository.id, generation=1, label="proxy-1", group="primary"
    )
    return Repository.open(repository.access.store, Credential(key=key))


def test_mostly_dead_packs_are_rewritten_and_nothing_is_opened_for_it(repository: Repository) -> None:
    kept = noise(9, 1)[:BLOCK] + noise(9, 1)[4 * BLOCK : 5 * BLOCK] + noise(5, 3)
    with blind(repository) as proxy:
        back_up(proxy, noise(9, 1), run="old")
        new = back_up(proxy, kept, run="new")
        end_point(proxy.access, vm_id="vm-1", run="old")

        report = collect(proxy)

    assert report.rewritten_packs >= 2
    assert 2 * BLOCK <= report.moved_bytes < 3 * BLOCK + 4096
    assert restore(repository, new) == kept
    assert is_clean(repository)
    assert size_of(repository) < 8 * BLOCK


def test_packs_of_another_trust_group_are_left_where_they_are(repository: Repository) -> None:
    """A write key would vouch for what somebody else has stored; who holds the passphrase may speak for all."""
    with blind(repository) as proxy:
        back_up(repository, noise(9, 1), run="old")
        new = back_up(repository, noise(9, 1)[:BLOCK] + noise(9, 1)[4 * BLOCK : 5 * BLOCK], run="new")
        end_point(proxy.access, vm_id="vm-1", run="old")

        report = collect(proxy)

    assert report.rewritten_packs == 0
    assert any("trust group owner; use the passphrase" in kept.why for kept in report.kept)
    assert restore(repository, new) == noise(9, 1)[:BLOCK] + noise(9, 1)[4 * BLOCK : 5 * BLOCK]
    assert collect(repository).rewritten_packs >= 2
    assert is_clean(repository)


def test_an_empty_repository_shrinks_to_nothing(repository: Repository) -> None:
    back_up(repository, noise(5), run="only")
    end_point(repository.access, vm_id="vm-1", run="only")

    collect(repository)

    assert packs(repository) == set()
    assert list(fragments_in(repository.access.store)) == []
    assert restore(repository, back_up(repository, text(5), run="again")) == text(5)


def test_a_dry_run_says_the_same_and_touches_nothing(repository: Repository) -> None:
    back_up(repository, noise(6, 1), run="old")
    back_up(repository, noise(2, 1) + noise(4, 2), run="new")
    end_point(repository.access, vm_id="vm-1", run="old")
    store = repository.access.store
    folders = ("packs/", "index/", "points/", "condemned/", "writers/")
    before = {name for folder in folders for name in store.list(folder)}

    foreseen = collect(repository, CollectorSettings(dry_run=True))

    assert foreseen.dry_run
    assert before == {name for folder in folders for name in store.list(folder)}
    done = collect(repository)
    assert (foreseen.freed_packs, foreseen.rewritten_packs) == (done.freed_packs, done.rewritten_packs)


def test_a_point_that_is_not_whole_stops_the_collection_before_anything_goes(repository: Repository) -> None:
    back_up(repository, noise(6, 1), run="old")
    back_up(repository, noise(6, 2), run="new")
    end_point(repository.access, vm_id="vm-1", run="old")
    [lost, *_] = [
        place.pack.pack_id
        for place in repository.access.index.find(repository.access.keyring.block_id(noise(6, 2)[:BLOCK]))
    ]
    repository.access.store.delete(pack_name(lost))
    before = packs(repository)

    with pytest.raises(DamageError, match="no pack holds"):
        collect(repository)
    assert packs(repository) == before


def test_a_damaged_point_stops_the_collection(repository: Repository) -> None:
    back_up(repository, noise(6, 1), run="old")
    end_point(repository.access, vm_id="vm-1", run="old")
    repository.access.store.put_if_absent("points/vm-1/odd", [b"not a point"])

    with pytest.raises(DamageError, match="points/vm-1/odd"):
        collect(repository)
    assert packs(repository)


def test_a_forged_end_is_not_honoured(repository: Repository) -> None:
    """The store could make one up; a collector that believed it would do the rest."""
    back_up(repository, noise(5), run="only")
    repository.access.store.put_if_absent("ended/vm-1/only", [b"says who?"])

    collect(repository)

    assert list(repository.access.store.list("points/")) == ["points/vm-1/only"]
    assert packs(repository)


def test_a_lost_index_costs_time_not_data(repository: Repository) -> None:
    point = back_up(repository, noise(5), run="only")
    for fragment_id in list(fragments_in(repository.access.store)):
        repository.access.store.delete(f"index/{fragment_id.hex()}")

    collect(repository)

    assert restore(repository, point) == noise(5)
    assert is_clean(repository)


def test_copies_of_writers_who_met_are_given_up_when_their_packs_go(repository: Repository) -> None:
    """Two writers stored the same; what is left of one pack is in the other as well."""
    same = noise(2, 7)
    with (
        repository.begin_disk(vm_id="vm-1", run="one", disk_key=KEY, fence=1) as one,
        repository.begin_disk(vm_id="vm-2", run="two", disk_key=KEY, fence=1) as two,
    ):
        results = [
            writer.finish(
                size_bytes=2 * BLOCK, segments=store_content(writer, same), report=report_of(writer, 2 * BLOCK)
            )
            for writer in (one, two)
        ]
    first = commit(repository, results[0], run="one")
    second = commit(repository, results[1], run="two", vm=OTHER)
    assert size_of(repository) > 4 * BLOCK

    collect(repository)

    assert size_of(repository) < 3 * BLOCK
    assert restore(repository, first) == restore(repository, second) == same
    assert is_clean(repository)


def test_an_earlier_list_is_completed_first(repository: Repository) -> None:
    point = back_up(repository, noise(5), run="kept")
    condemn(repository, 1, packs(repository))

    report = collect(repository)

    assert (report.rescued_packs, report.freed_packs) == (len(packs(repository)), 0)
    assert repository.access.store.exists("condemned/1.done")
    assert restore(repository, point) == noise(5)


def test_packs_that_another_collector_deletes_first_are_no_error(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(repository, noise(6, 1), run="old")
    end_point(repository.access, vm_id="vm-1", run="old")
    store = repository.access.store
    seen = store.exists
    for fragment_id in list(fragments_in(store)):
        store.delete(f"index/{fragment_id.hex()}")

    def seen_last(name: str) -> bool:
        there = seen(name)
        if name.startswith("packs/"):
            store.delete(name)
        return there

    monkeypatch.setattr(store, "exists", seen_last)
    doomed = packs(repository)
    condemn(repository, 1, doomed)
    report = collect(repository)

    assert packs(repository) == set()
    assert report.waiting_for == ()


def test_it_can_be_stopped_and_goes_on_later(repository: Repository) -> None:
    back_up(repository, noise(6, 1), run="old")
    end_point(repository.access, vm_id="vm-1", run="old")

    def stop() -> None:
        raise CancelledError("collection", why="it was told to stop")

    with pytest.raises(CancelledError):
        collect(repository, go_on=stop)
    report: CollectionReport = collect(repository)
    assert report.freed_packs >= 2


def test_a_rate_limit_is_kept(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(repository, noise(9, 1), run="old")
    back_up(repository, noise(9, 1)[:BLOCK] + noise(9, 1)[4 * BLOCK : 5 * BLOCK], run="new")
    end_point(repository.access, vm_id="vm-1", run="old")
    now = [0.0]
    monkeypatch.setattr("proxy_worker.repository.collector.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "proxy_worker.repository.collector.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )

    report = collect(repository, CollectorSettings(bytes_per_s=BLOCK))

    assert report.duration_seconds == pytest.approx(report.moved_bytes / BLOCK)


def test_an_unencrypted_repository_is_collected_alike(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "clear", encrypted=False)
    back_up(repository, noise(6, 1), run="old")
    new = back_up(repository, noise(2, 1) + noise(4, 2), run="new")
    end_point(repository.access, vm_id="vm-1", run="old")

    collect(repository)

    assert restore(repository, new) == noise(2, 1) + noise(4, 2)
    assert is_clean(repository)


def test_what_is_no_restore_point_does_not_keep_a_collection_from_its_work(repository: Repository) -> None:
    point = back_up(repository, noise(3, 1), run="stays")
    back_up(repository, noise(3, 2), run="goes")
    for name in ("points/notes.txt", "points/vm-1/some/more", "ended/notes.txt", "condemned/notes.txt"):
        repository.access.store.put_if_absent(name, [b"somebody's"])
    end_point(repository.access, vm_id="vm-1", run="goes")

    assert collect(repository).freed_packs >= 1
    assert restore(repository, point) == noise(3, 1)
    back_up(repository, noise(3, 3), run="later")
