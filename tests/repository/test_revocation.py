"""Keys that were handed out are known by name and can be shut out, at once and everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.repository.collector import collect
from proxy_worker.repository.config import load_config
from proxy_worker.repository.credentials import Credential, KeyFile, make_key_file, new_secret, save_key_file
from proxy_worker.repository.errors import KeyFileError, KeyNotFoundError, RevokedKeyError
from proxy_worker.repository.issuing import issued_keys, record_issue, recorded_issue, revoke
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import rotate
from tests.node.benches import bench_of
from tests.repository.making import CHEAP, CREDENTIAL, PASSPHRASE, back_up, make_repository, noise, restore, text


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def handed_out(repository: Repository, label: str) -> KeyFile:
    assert repository.unlocked
    key = make_key_file(
        repository.unlocked,
        kind="write",
        repository_id=repository.id,
        generation=repository.access.config.generation,
        label=label,
        group="default",
    )
    record_issue(repository.access, key)
    return key


def test_a_key_that_could_not_be_written_is_not_listed(repository: Repository, tmp_path: Path) -> None:
    key = handed_out(repository, "proxy-1")
    path = tmp_path / "proxy-1.key"

    with new_secret(path, "key file") as write:
        pass
    path.unlink()
    with pytest.raises(KeyFileError, match="can't write key file"), recorded_issue(repository.access, key):
        write(b"a key")
    with pytest.raises(KeyNotFoundError), new_secret(path, "key file"):
        shut_out(repository, "proxy-1")
    assert not list(issued_keys(repository.access))
    assert not path.exists()


def shut_out(repository: Repository, which: str) -> tuple[str, ...]:
    assert repository.unlocked
    return revoke(repository.access, repository.unlocked, which).points


def test_what_was_handed_out_is_listed(repository: Repository) -> None:
    handed_out(repository, "proxy-1")
    key = handed_out(repository, "proxy-2")

    with Repository.open(repository.access.store, Credential(key=key)) as proxy:
        assert {(issued.label, issued.kind) for issued in issued_keys(proxy.access)} == {
            ("proxy-1", "write"),
            ("proxy-2", "write"),
        }


def test_a_revoked_key_opens_nothing_and_what_it_stored_no_longer_counts(repository: Repository) -> None:
    stolen, other = handed_out(repository, "stolen"), handed_out(repository, "other")
    store = repository.access.store
    with Repository.open(store, Credential(key=stolen)) as proxy:
        back_up(proxy, noise(3), run="theirs")
    with Repository.open(store, Credential(key=other)) as proxy:
        back_up(proxy, text(2), run="ours")

    assert shut_out(repository, "stolen") == ("web01 theirs",)
    assert shut_out(repository, "stolen") == ("web01 theirs",)  # again, it changes nothing

    with pytest.raises(RevokedKeyError, match="stolen"):
        Repository.open(store, Credential(key=stolen))
    with Repository.open(store, CREDENTIAL) as owner:
        assert owner.access.config.generation == 2
        assert [point.run for point in owner.points()] == ["ours"]
        assert restore(owner, owner.point("vm-1", "ours")) == text(2)


def test_a_collection_frees_what_a_revoked_key_has_stored(repository: Repository) -> None:
    stolen, other = handed_out(repository, "stolen"), handed_out(repository, "other")
    store = repository.access.store
    with Repository.open(store, Credential(key=other)) as proxy:
        back_up(proxy, text(2), run="ours")
    before = set(store.list("packs/"))
    with Repository.open(store, Credential(key=stolen)) as proxy:
        back_up(proxy, noise(3), run="theirs")
    shut_out(repository, "stolen")

    with Repository.open(store, CREDENTIAL) as owner:
        assert collect(owner).freed_packs > 0
        assert set(store.list("packs/")) == before
        assert restore(owner, owner.point("vm-1", "ours")) == text(2)


def test_what_others_need_of_a_revoked_keys_packs_stops_the_collection(repository: Repository) -> None:
    stolen, other = handed_out(repository, "stolen"), handed_out(repository, "other")
    store = repository.access.store
    with Repository.open(store, Credential(key=stolen)) as proxy:
        back_up(proxy, noise(3), run="theirs")
    with Repository.open(store, Credential(key=other)) as proxy:
        back_up(proxy, noise(3) + text(1), run="ours")
    packs = set(store.list("packs/"))
    shut_out(repository, "stolen")

    with Repository.open(store, CREDENTIAL) as owner, pytest.raises(DamageError):
        collect(owner)
    assert set(store.list("packs/")) == packs


def test_a_key_is_named_by_its_label_or_its_id(repository: Repository) -> None:
    twice = handed_out(repository, "proxy-1")
    handed_out(repository, "proxy-1")
    for which, why in (("proxy-1", "2 keys have that label"), ("proxy-9", "no key was handed out")):
        with pytest.raises(KeyNotFoundError, match=why):
            shut_out(repository, which)

    shut_out(repository, twice.keyring().identity.body.writer_id.hex())
    with pytest.raises(RevokedKeyError):
        Repository.open(repository.access.store, Credential(key=twice))


def test_an_id_that_nothing_is_known_of_is_refused_unless_forced(repository: Repository) -> None:
    assert repository.unlocked
    store = repository.access.store
    stolen = handed_out(repository, "stolen").keyring().identity.body.writer_id.hex()
    mistyped = stolen[:-1] + ("0" if stolen[-1] != "0" else "1")
    with pytest.raises(KeyNotFoundError, match="no key of that writer id") as refused:
        shut_out(repository, mistyped)
    assert "--force" in str(refused.value.remedy)
    assert load_config(store).revoked_writers == ()

    revoke(repository.access, repository.unlocked, mistyped, force=True)
    assert load_config(store).revoked_writers == (mistyped,)
    shut_out(repository, mistyped)  # known by now


def test_a_key_without_a_record_is_known_by_what_it_has_signed(repository: Repository) -> None:
    key = handed_out(repository, "old")
    writer_id = key.keyring().identity.body.writer_id.hex()
    repository.access.store.delete(f"issued/{writer_id}")
    with pytest.raises(KeyNotFoundError):
        shut_out(repository, writer_id)
    with Repository.open(repository.access.store, Credential(key=key)) as proxy:
        back_up(proxy, text(1), run="theirs")

    assert shut_out(repository, writer_id) == ("web01 theirs",)


def test_a_proxy_at_work_honours_it_from_its_next_task_on(repository: Repository, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    save_key_file(handed_out(repository, "proxy-1"), secrets / "main.key")
    bench = bench_of(tmp_path)
    reference = RepositoryReference(name="main", location=str(tmp_path / "repository"), credential="main")
    before = bench.repository(reference, "write")
    assert bench.repository(reference, "write") is before

    rotate(repository.access.store, [PASSPHRASE], cost=CHEAP)
    assert bench.repository(reference, "write").access.config.generation == 2
    shut_out(repository, "proxy-1")
    with pytest.raises(RevokedKeyError):
        bench.repository(reference, "write")
    bench.forget_repositories()
