"""Object lock, against a real server that keeps to it: what is locked and for how long, what goes and what stays,
and how a repository comes back that somebody has deleted with a key of its store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from obstore.exceptions import PermissionDeniedError

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.collector_report import CollectionReport
from proxy_worker.repository.config import decode_config, encode_config, load_config
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import ObjectLockedError, Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.locks import LOCKED_PREFIXES, ObjectLock, ObjectLockRefusedError
from proxy_worker.repository.store.objects import ObjectStore
from proxy_worker.repository.store.tally import RequestMeter
from proxy_worker.repository.store.versions import Versions
from proxy_worker.repository.twins import make_twin
from proxy_worker.repository.undeleting import bring_back, hidden_objects
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import NOW
from tests.repository.locking import DAYS, GOVERNANCE, Vault, intruder, make_vault
from tests.repository.making import CHEAP, PASSPHRASE, VM, back_up, noise, restore, write_disk
from tests.simulators.bad_line import Fault, bad_line
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage
from tests.system.commands import run_forked


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_what_a_restore_needs_is_locked_from_when_it_is_put(object_storage: ObjectStorage, mode: Any) -> None:
    vault = make_vault(object_storage, ObjectLock(mode, DAYS))
    content = noise(8)
    point = back_up(vault.repository, content, run="r1")
    vault.repository.close()

    kept = vault.names(*LOCKED_PREFIXES)
    assert {name.partition("/")[0] for name in kept} == {"config", "keys", "packs", "index", "points"}
    for name in kept:
        assert DAYS - 0.1 < vault.days_left(name) <= DAYS
    for versions in vault.store.versions.below("packs/"):
        with pytest.raises(PermissionDeniedError):
            vault.store.versions.delete(versions[0])
    assert vault.versions("writers/") == 0, "marks come and go, and leave nothing"
    (pack, *_) = vault.names("packs/")
    with pytest.raises(ObjectLockedError, match="its lock isn't over"):
        vault.store.delete(pack)
    with Repository.open(ObjectStore(vault.store.location, access_key=ACCESS_KEY), Credential(PASSPHRASE)) as again:
        assert restore(again, point) == content


BUSY = Fault(status=503, body=b"<Error><Code>SlowDown</Code></Error>")


@pytest.mark.parametrize(
    ("method", "fault"),
    [("PUT", BUSY), ("PUT", Fault(lose_answer=True)), ("HEAD", BUSY), ("GET", BUSY), ("DELETE", BUSY)],
)
def test_a_server_that_fails_for_a_moment_is_asked_again(
    vault: Vault, method: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.repository.store.retrying.FIRST_PAUSE_S", 0.01)
    with bad_line(vault.server.endpoint) as (line, endpoint):
        store = ObjectStore(vault.store.location.replace(vault.server.endpoint, endpoint), access_key=ACCESS_KEY)
        store.lock_objects(GOVERNANCE)
        store.put_if_absent("writers/vm/run/disk.1", [b"a mark"])
        line.first(2, method, fault)

        writer = store.create("packs/ab/one")
        writer.write(b"a pack")
        assert writer.finish()
        assert store.put_if_absent("points/vm/run", [b"a point"])
        assert vault.days_left("points/vm/run") > DAYS - 1
        store.delete("writers/vm/run/disk.1")

    assert vault.store.get("packs/ab/one") == b"a pack"
    assert vault.versions("packs/ab/") == 1, "what is sent again is there once"
    assert vault.versions("writers/") == 0


def test_a_server_may_say_otherwise_that_an_object_is_locked(vault: Vault) -> None:
    # MinIO's words, which the server of these tests doesn't use.
    said = b"<Error><Code>InvalidRequest</Code><Message>Object is WORM protected</Message></Error>"
    with bad_line(vault.server.endpoint) as (line, endpoint):
        store = ObjectStore(vault.store.location.replace(vault.server.endpoint, endpoint), access_key=ACCESS_KEY)
        (versions,) = store.versions.below("config/")
        line.always("DELETE", Fault(status=400, body=said))
        with pytest.raises(PermissionDeniedError, match="WORM protected"):
            store.versions.delete(versions[0])


def test_a_bucket_or_a_folder_that_cannot_lock_is_refused(object_storage: ObjectStorage, tmp_path: Path) -> None:
    bucket = ObjectStore(object_storage.url(), access_key=ACCESS_KEY)
    folder = LocalStore(tmp_path / "folder")
    folder.prepare()
    stores: list[Store] = [bucket, folder]
    for store in stores:
        with pytest.raises(ObjectLockRefusedError):
            Repository.create(store, passphrase=PASSPHRASE, kdf_cost=CHEAP, object_lock=GOVERNANCE)
        assert not list(store.list("config/")) + list(store.list("keys/"))


def test_a_server_that_only_pretends_is_refused(
    object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server keeps to its locks; one that doesn't is played by what its client reports.
    with monkeypatch.context() as played:
        played.setattr(Versions, "locked_until", lambda *_: 0.0)
        with pytest.raises(ObjectLockRefusedError, match="doesn't lock it"):
            make_vault(object_storage)
    with monkeypatch.context() as played:
        played.setattr(Versions, "delete", lambda *_: None)
        with pytest.raises(ObjectLockRefusedError, match="deletes what is locked"):
            make_vault(object_storage)


def test_a_pack_is_locked_for_longer_only_when_half_its_time_is_over(vault: Vault) -> None:
    back_up(vault.repository, noise(3), run="r1")
    old = vault.names("packs/")
    back_up(vault.repository, noise(3, seed=2), run="r2")
    younger = sorted(set(vault.names("packs/")) - set(old))
    vault.let_time_pass(old, days_left=DAYS / 2 - 1)
    vault.let_time_pass(younger, days_left=DAYS / 2 + 1)

    back_up(vault.repository, noise(3) + noise(3, seed=2), run="r3")

    blocks = max(old, key=vault.store.size)
    assert [name for name in old if vault.days_left(name) > DAYS - 1] == [blocks], "the other holds only a map"
    assert all(vault.days_left(name) < DAYS / 2 + 2 for name in younger)


def test_extending_costs_a_look_and_where_it_is_due_a_put(vault: Vault) -> None:
    back_up(vault.repository, noise(2), run="r1")
    (pack,) = vault.names("packs/")
    locks = vault.store.locks
    assert locks is not None

    meter = RequestMeter(vault.store)
    assert not locks.extend_if_due(pack)
    assert str(meter.read()) == "1 HEAD, 1 LIST"
    vault.let_time_pass([pack], days_left=1)
    meter = RequestMeter(vault.store)
    assert locks.extend_if_due(pack)
    assert str(meter.read()) == "1 PUT, 1 HEAD, 1 LIST"
    assert not locks.extend_if_due("packs/ab/gone")


def test_a_collection_keeps_what_is_locked_and_says_so_and_frees_it_later(vault: Vault) -> None:
    back_up(vault.repository, noise(3), run="r1")
    dead = vault.names("packs/")
    kept = back_up(vault.repository, noise(3, seed=2), run="r2")
    live = sorted(set(vault.names("packs/")) - set(dead))
    end_point(vault.repository.access, vm_id=VM.vm_id, run="r1")
    assert vault.names("points/") == [f"points/{VM.vm_id}/r2"]
    aging = [*dead, *live, *vault.names("config/", "keys/", "points/")]
    vault.let_time_pass(aging, days_left=1)

    report = collect(vault.repository, NOW)

    assert (report.freed_packs, set(vault.names("packs/"))) == (0, {*dead, *live})
    assert any("locked, the last of them until" in one.why for one in report.kept), report.kept
    assert report.extended_locks == len(aging) - len(dead)
    assert all(vault.days_left(name) < 2 for name in dead), "what nobody needs isn't locked for longer"
    assert all(vault.days_left(name) > DAYS - 1 for name in live)

    vault.let_locks_end(dead)
    freed: CollectionReport = collect(vault.repository, NOW)
    assert freed.freed_packs == len(dead)
    assert [vault.versions(name) for name in dead] == [0] * len(dead), "no version is left to pay for"
    assert restore(vault.repository, kept) == noise(3, seed=2)


def test_a_check_names_what_was_deleted_and_overwritten(vault: Vault) -> None:
    content = noise(6)
    point = back_up(vault.repository, content, run="r1")
    other = back_up(vault.repository, noise(3, seed=2), run="r2")
    thief = intruder(vault)
    pack = vault.names("packs/")[0]
    thief.delete(f"points/{VM.vm_id}/r1")
    thief.replace(pack, [b"garbage"])

    said = [str(finding) for finding in check(vault.repository.access).findings]
    assert any(f"points/{VM.vm_id}/r1: it was deleted" in one for one in said)
    assert any(f"{pack}: it was overwritten" in one for one in said)

    for hidden in hidden_objects(vault.store):
        bring_back(vault.store, hidden)
    assert check(vault.repository.access).findings == ()
    assert restore(vault.repository, point) == content
    assert restore(vault.repository, other) == noise(3, seed=2)


def test_a_repository_that_was_deleted_and_overwritten_whole_comes_back(vault: Vault, tmp_path: Path) -> None:
    content = noise(6)
    point = back_up(vault.repository, content, run="r1")
    back_up(vault.repository, noise(1, seed=2), run="r2")
    end_point(vault.repository.access, vm_id=VM.vm_id, run="r2")
    thief = intruder(vault)
    packs = vault.names("packs/")
    thief.lock_objects(ObjectLock("compliance", 3650))
    thief.replace(packs[0], [b"garbage that nobody can remove, either"])
    for prefix in LOCKED_PREFIXES:
        for name in list(thief.list(prefix)):
            vault.store.versions.hide(name)
    assert vault.names(*LOCKED_PREFIXES) == []

    def undelete(*options: str) -> dict[str, Any]:
        words = ("proxy-worker", "repository", "undelete", vault.store.location, "--json", *options)
        done = run_forked(words, {**os.environ, **vault.server.environment})
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    expected = {*packs, f"points/{VM.vm_id}/r1", "config/1"}
    found = {one["object"] for one in undelete("--dry-run")["objects"]}
    assert found >= expected
    assert f"points/{VM.vm_id}/r2" not in found, "what was removed as it should be stays so"
    assert vault.names(*LOCKED_PREFIXES) == []
    undelete()
    assert not list(hidden_objects(vault.store))

    with Repository.open(vault.store, Credential(PASSPHRASE)) as again:
        reindex(again.access)
        again.access.index.refresh()
        assert restore(again, point) == content
        assert check(again.access).findings == ()
        undelete("--point", "r2")
        assert restore(again, again.point(VM.vm_id, "r2")) == noise(1, seed=2)


def test_a_copy_in_a_folder_can_be_read_but_not_written(vault: Vault, tmp_path: Path) -> None:
    content = noise(2)
    point = back_up(vault.repository, content, run="r1")
    folder = LocalStore(tmp_path / "copy")
    folder.prepare()
    for name in vault.names(*LOCKED_PREFIXES):
        folder.put_if_absent(name, [vault.store.get(name)])

    with Repository.open(folder, Credential(PASSPHRASE)) as copy:
        assert restore(copy, point) == content
        with pytest.raises(ObjectLockRefusedError, match="only object stores lock"):
            write_disk(copy, content, run="r2")


def test_a_twin_has_locks_of_its_own_or_none(vault: Vault, tmp_path: Path) -> None:
    with make_twin(LocalStore(tmp_path), vault.repository, passphrase=PASSPHRASE, kdf_cost=CHEAP) as twin:
        assert not twin.access.config.object_lock
        back_up(twin, noise(1), run="r1")


def test_versions_that_do_not_know_object_lock_refuse_such_a_repository(vault: Vault) -> None:
    config = load_config(vault.store)
    assert (config.version, config.object_lock) == (2, GOVERNANCE)
    unlocked = vault.repository.unlocked
    assert unlocked is not None
    older = msgspec.structs.replace(config, version=1)
    with pytest.raises(DamageError, match="isn't of its version"):
        decode_config(encode_config(older, unlocked.root_key), "config/1", "here")
