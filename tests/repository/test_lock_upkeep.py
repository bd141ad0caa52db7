"""Who keeps objects locked that restore points need: through an attack, and where collections are late."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.objects import ObjectStore
from proxy_worker.repository.undeleting import bring_back, hidden_objects
from proxy_worker.repository.upkeep import note_kept
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import NOW
from tests.repository.locking import DAYS, Vault, intruder, make_vault
from tests.repository.making import PASSPHRASE, VM, back_up, commit, noise, report_of, restore, write_disk
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage

DAY_S = 24 * 3600


def take_over(vault: Vault, parent_run: str, *, run: str) -> str:
    """A disk in which nothing has changed since an earlier point; the sealed result."""
    repository = vault.repository
    parent = repository.point(VM.vm_id, parent_run)
    with repository.begin_disk(vm_id=VM.vm_id, run=run, disk_key="scsi0:0", fence=1) as writer:
        disk = writer.parent(parent, "scsi0:0")
        assert disk is not None
        report = report_of(writer, disk.size_bytes).model_copy(update={"parent": parent_run})
        return writer.finish(size_bytes=disk.size_bytes, segments=disk.segments, report=report)


def test_a_collection_locks_what_was_overwritten_and_not_what_lies_on_top(vault: Vault, tmp_path: Path) -> None:
    content = noise(8)
    point = back_up(vault.repository, content, run="r1")
    aging = vault.names("packs/", "points/", "config/")
    store = ObjectStore(vault.store.location, access_key=ACCESS_KEY)
    with Repository.open(store, Credential(PASSPHRASE), cache_dir=tmp_path) as tending:
        collect(tending, NOW)  # it knows the maps, and needn't read them again
        vault.let_time_pass(aging, days_left=1)
        thief = intruder(vault)
        for name in aging[:-1]:
            thief.replace(name, [bytes(thief.size(name))])
        overwritten = [name for name in aging if name.startswith("packs/")]
        for name in (name for name in aging if not name.startswith("packs/")):
            for hidden in hidden_objects(vault.store, (name,)):
                bring_back(vault.store, hidden)

        report = collect(tending, NOW)

    assert [vault.days_left_of_original(name) > DAYS - 1 for name in aging] == [True] * len(aging)
    assert [vault.days_left(name) for name in overwritten if vault.days_left(name) > 0] == []
    said = "\n".join(report.notes)
    assert all(f"{name}: it was overwritten" in said for name in overwritten), said
    for hidden in hidden_objects(vault.store):
        bring_back(vault.store, hidden)
    assert restore(vault.repository, point) == content


@pytest.mark.parametrize("page", [1, 2, 3])
def test_the_original_is_found_below_pages_of_what_came_later(
    vault: Vault, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.repository.store.versions._PAGE", page)
    names = [f"packs/ab/{number:032x}" for number in range(4)]
    for name in names:
        vault.store.put_if_absent(name, [b"a pack"])
    thief = intruder(vault)
    for content in (b"garbage", b"more garbage", b"a pack that never was"):
        thief.replace(names[1], [content])
        vault.store.versions.hide(names[2])
    assert vault.store.locks is not None

    originals = {one.name: one for one in vault.store.locks.originals("packs/ab/")}

    said = {name: one.hidden for name, one in originals.items()}
    assert said == {names[0]: None, names[1]: "overwritten", names[2]: "deleted", names[3]: None}
    for one in originals.values():
        assert vault.store.versions.locked_until(one.name, one.version_id) > 0, "nothing else is locked"


def test_a_backup_locks_the_original_of_what_it_names(vault: Vault) -> None:
    back_up(vault.repository, noise(3), run="r1")
    pack = max(vault.names("packs/"), key=vault.store.size)
    vault.let_time_pass([pack], days_left=1)
    intruder(vault).replace(pack, [vault.store.get(pack)[:-1] + b"?"])

    write_disk(vault.repository, noise(3), run="r2")

    assert vault.days_left_of_original(pack) > DAYS - 1
    assert vault.days_left(pack) < 0


def test_a_collection_that_cannot_tell_what_is_needed_keeps_everything(vault: Vault) -> None:
    back_up(vault.repository, noise(6), run="r1")
    aging = vault.names("packs/", "points/", "keys/")
    vault.let_time_pass(aging, days_left=1)
    thief = intruder(vault)
    for name in vault.names("packs/"):
        thief.replace(name, [bytes(thief.size(name))])

    with pytest.raises(DamageError):
        collect(vault.repository, NOW)

    assert [vault.days_left_of_original(name) > DAYS - 1 for name in aging] == [True] * len(aging)


def test_what_a_point_takes_over_is_kept_by_its_commit_where_the_last_collection_is_long_ago(vault: Vault) -> None:
    back_up(vault.repository, noise(8), run="r1")
    packs = vault.names("packs/")
    began_at = vault.repository.access.config.created_at
    vault.let_time_pass(packs, days_left=1)

    note_kept(vault.repository.access, began_at)
    commit(vault.repository, take_over(vault, "r1", run="r2"), run="r2")
    assert vault.days_left(max(packs, key=vault.store.size)) < 2, "a collection has just seen to it"

    note_kept(vault.repository.access, began_at - DAYS / 4 * DAY_S - 60)
    vault.store.delete(f"kept/{began_at}")
    commit(vault.repository, take_over(vault, "r1", run="r3"), run="r3")
    assert all(vault.days_left(name) > DAYS - 1 for name in packs)


def test_what_a_point_takes_over_from_one_that_has_ended_is_kept_by_its_commit(vault: Vault) -> None:
    back_up(vault.repository, noise(8), run="r1")
    packs = vault.names("packs/")
    result = take_over(vault, "r1", run="r2")
    end_point(vault.repository.access, vm_id=VM.vm_id, run="r1")
    note_kept(vault.repository.access, vault.repository.access.config.created_at)
    vault.let_time_pass(packs, days_left=1)

    commit(vault.repository, result, run="r2")

    assert all(vault.days_left(name) > DAYS - 1 for name in packs)


def test_a_collection_leaves_word_that_all_is_kept_and_only_the_newest(vault: Vault) -> None:
    access = vault.repository.access
    back_up(vault.repository, noise(2), run="r1")
    note_kept(access, access.config.created_at - DAY_S)
    collect(vault.repository, NOW)
    (note,) = vault.names("kept/")
    assert int(note.partition("/")[2]) >= access.config.created_at


def test_parity_is_kept_as_long_as_its_packs(object_storage: ObjectStorage) -> None:
    vault = make_vault(object_storage, parity=Parity(parity_shares=2))
    with vault.repository:
        back_up(vault.repository, noise(2), run="r1")
        guarded = vault.names("packs/", "parity/")
        note_kept(vault.repository.access, vault.repository.access.config.created_at)
        vault.let_time_pass(guarded, days_left=1)
        back_up(vault.repository, noise(2), run="r2")
        assert all(vault.days_left(name) > DAYS - 1 for name in guarded), "whoever names a pack sees to both"

        vault.let_time_pass(guarded, days_left=1)
        collect(vault.repository, NOW)
        assert all(vault.days_left(name) > DAYS - 1 for name in guarded)
