"""Rotation of the data key pair: crash-safe, for every passphrase at once, and old packs opened by new seals."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import msgspec
import pytest

from proxy_worker.repository import passphrases
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.config import load_config
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.data_keys import seal_name
from proxy_worker.repository.errors import (
    CannotReadError,
    ConfigurationChangedError,
    KeyInUseError,
    NotEncryptedError,
    RepositoryDamageError,
)
from proxy_worker.repository.keyring import public_key_id
from proxy_worker.repository.reconfiguring import publish_next
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import remove_passphrase, rotate
from proxy_worker.repository.store import ObjectUnreadableError
from proxy_worker.repository.store.local import LocalStore
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import CHEAP, CREDENTIAL, PASSPHRASE, back_up, make_repository, noise, restore

pytestmark = pytest.mark.usefixtures("quick")

SECOND = b"the second administrator's"
BOTH = (PASSPHRASE, SECOND)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a restore point and two passphrases."""
    with make_repository(tmp_path / "repository") as made:
        back_up(made, noise(3), run="before")
        assert made.unlocked
        key = passphrases.wrap(made.unlocked, SECOND, repository_id=made.id, label="second", cost=CHEAP)
        passphrases.add(made.access.store, key)
    return tmp_path / "repository"


def key_of(repository: Repository, kind: str) -> Credential:
    assert repository.unlocked
    assert kind in {"read", "write"}
    key = make_key_file(
        repository.unlocked,
        kind="read" if kind == "read" else "write",
        repository_id=repository.id,
        generation=repository.access.config.generation,
        label="proxy",
        group="default",
    )
    return Credential(key=key)


def opened(folder: Path, credential: Credential = CREDENTIAL) -> Repository:
    return Repository.open(LocalStore(folder), credential)


def restored(repository: Repository, run: str) -> bytes:
    return restore(repository, repository.point("vm-1", run))


def test_every_passphrase_opens_old_and_new_and_an_old_read_key_only_the_old(folder: Path) -> None:
    with opened(folder) as owner:
        old_reader, old_writer = key_of(owner, "read"), key_of(owner, "write")

    rotate(LocalStore(folder), BOTH, cost=CHEAP)
    with opened(folder, old_writer) as proxy:
        back_up(proxy, noise(3, 2), run="after")

    for passphrase in BOTH:
        with opened(folder, Credential(passphrase=passphrase)) as owner:
            assert restored(owner, "before") == noise(3)
            assert restored(owner, "after") == noise(3, 2)
    with opened(folder, old_reader) as proxy:
        assert restored(proxy, "before") == noise(3)
        with pytest.raises(CannotReadError, match="it was rotated"):
            restored(proxy, "after")


def test_a_collection_seals_old_packs_anew_and_the_newest_key_alone_opens_them(folder: Path) -> None:
    rotate(LocalStore(folder), BOTH, cost=CHEAP)
    with opened(folder) as owner:
        back_up(owner, noise(3, 2), run="after")
        whole = key_of(owner, "read").key
        assert whole
    newest = Credential(key=msgspec.structs.replace(whole, data_private_keys=whole.data_private_keys[:1]))
    with opened(folder, newest) as proxy, pytest.raises(CannotReadError):
        restored(proxy, "before")

    with opened(folder) as owner:
        assert collect(owner).resealed_keys > 0
        assert collect(owner).resealed_keys == 0

    with opened(folder, newest) as proxy:
        assert (restored(proxy, "before"), restored(proxy, "after")) == (noise(3), noise(3, 2))
        assert check(proxy.access).findings == ()


def test_a_seal_that_holds_another_key_is_put_right(folder: Path) -> None:
    """Whoever has a write key can put one before the collector does."""
    rotate(LocalStore(folder), BOTH, cost=CHEAP)
    with opened(folder) as owner:
        owner.access.index.refresh()
        [key, *_] = owner.access.index.runs[0].pack(0).data_keys
        name = seal_name(key.key_id, public_key_id(owner.access.config.data_public_keys[0]))
        owner.access.store.put_if_absent(name, [owner.access.sealer.seal_object(name, b"garbage")])

        collect(owner)
        whole = key_of(owner, "read").key
        assert whole
    newest = Credential(key=msgspec.structs.replace(whole, data_private_keys=whole.data_private_keys[:1]))
    with opened(folder, newest) as proxy:
        assert restored(proxy, "before") == noise(3)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_any_operation_everybody_still_opens_everything(
    folder: Path, tmp_path: Path, after: bool
) -> None:
    counting = FaultyStore(LocalStore(Path(shutil.copytree(folder, tmp_path / "whole"))), only_writes=True)
    rotate(counting, BOTH, cost=CHEAP)
    assert counting.operations >= len(BOTH) * 2 + 1

    for number in range(counting.operations):
        copy = Path(shutil.copytree(folder, tmp_path / f"{number}"))
        with contextlib.suppress(StoppedError):
            rotate(FaultyStore(LocalStore(copy), stop_at=number, after=after, only_writes=True), BOTH, cost=CHEAP)
        for passphrase in BOTH:
            with opened(copy, Credential(passphrase=passphrase)) as owner:
                back_up(owner, noise(2, number), run=f"by-{len(passphrase)}")
                assert restored(owner, "before") == noise(3)
        for passphrase in BOTH:
            with opened(copy, Credential(passphrase=passphrase)) as owner:
                assert all(restored(owner, f"by-{len(one)}") == noise(2, number) for one in BOTH)

        rotate(LocalStore(copy), BOTH, cost=CHEAP)

        assert len(list(passphrases.keys(LocalStore(copy)))) == len(BOTH), f"stopped at operation {number}"
        for passphrase in BOTH:
            with opened(copy, Credential(passphrase=passphrase)) as owner:
                assert restored(owner, "before") == noise(3)
        shutil.rmtree(copy)


def test_a_passphrase_that_is_not_given_would_be_left_behind(folder: Path) -> None:
    with pytest.raises(KeyInUseError, match=r"\(second\)"):
        rotate(LocalStore(folder), [PASSPHRASE], cost=CHEAP)
    assert load_config(LocalStore(folder)).generation == 1


@pytest.mark.parametrize("stop_at", range(6))
def test_of_two_objects_the_one_that_opens_everything_stays(folder: Path, stop_at: int) -> None:
    """After a rotation that was stopped both have one label: whoever tidies up may take the wrong one."""
    with contextlib.suppress(StoppedError):
        rotate(FaultyStore(LocalStore(folder), stop_at=stop_at, only_writes=True), BOTH, cost=CHEAP)
    with opened(folder) as owner:
        back_up(owner, noise(2, 7), run="after")
    for key in list(passphrases.keys(LocalStore(folder))):
        with contextlib.suppress(KeyInUseError):
            remove_passphrase(LocalStore(folder), key.key_id, PASSPHRASE)

    with opened(folder) as owner:
        assert (restored(owner, "before"), restored(owner, "after")) == (noise(3), noise(2, 7))


def test_a_passphrase_that_was_added_beside_a_rotation_does_not_take_its_place(folder: Path) -> None:
    with opened(folder) as owner:
        rotate(LocalStore(folder), BOTH, cost=CHEAP)
        assert owner.unlocked
        late = passphrases.wrap(owner.unlocked, b"late", repository_id=owner.id, cost=CHEAP)
        passphrases.add(LocalStore(folder), late)

    for key in list(passphrases.keys(LocalStore(folder))):
        with pytest.raises(KeyInUseError, match="doesn't open everything"):
            remove_passphrase(LocalStore(folder), key.key_id, b"late")


def test_a_passphrase_goes_for_another_of_all_that_it_has_where_the_newest_key_is_lost(folder: Path) -> None:
    """As after a recovery with a sheet that was older than the last rotation."""
    store = LocalStore(folder)
    with opened(folder) as owner:
        assert owner.unlocked
        old = [passphrases.wrap(owner.unlocked, one, repository_id=owner.id, cost=CHEAP) for one in (b"a", b"b")]
    rotate(store, BOTH, cost=CHEAP)
    for key in list(passphrases.keys(store)):
        store.delete(f"keys/{key.key_id}")
    for key in old:
        passphrases.add(store, key)

    with pytest.raises(KeyInUseError, match="doesn't open everything"):
        remove_passphrase(store, old[0].key_id, b"b")
    remove_passphrase(store, old[0].key_id, b"a", b"b")

    with opened(folder, Credential(passphrase=b"b")) as owner:
        assert restored(owner, "before") == noise(3)


@pytest.mark.parametrize("how", ["rotted", "bad sector"])
def test_a_damaged_key_object_can_be_removed_and_stops_nothing_else(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(folder)
    [lost] = [key.key_id for key in passphrases.keys(store) if key.label == "second"]
    spoil(folder, lost, how, monkeypatch)

    with opened(folder) as owner:
        assert restored(owner, "before") == noise(3)
    assert list(passphrases.damaged_keys(store)) == [lost]
    with pytest.raises(KeyInUseError, match=f"{lost} .*keys remove"):
        rotate(store, BOTH, cost=CHEAP)  # it may be put right, and would have been left behind
    with pytest.raises(KeyInUseError, match="last"):
        remove_passphrase(store, next(passphrases.keys(store)).key_id, PASSPHRASE)
    with pytest.raises(KeyInUseError, match="doesn't open everything"):
        remove_passphrase(store, lost, b"another")
    remove_passphrase(store, lost, PASSPHRASE)

    assert [key.label for key in passphrases.keys(store)] == ["first"]
    rotate(store, [PASSPHRASE], cost=CHEAP)
    with opened(folder) as owner:
        assert restored(owner, "before") == noise(3)


@pytest.mark.parametrize("how", ["rotted", "bad sector"])
def test_a_damaged_key_object_is_named_where_it_could_be_the_right_one(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [lost] = [key.key_id for key in passphrases.keys(LocalStore(folder)) if key.label == "second"]
    spoil(folder, lost, how, monkeypatch)

    with pytest.raises(RepositoryDamageError, match=f"keys/{lost}"):
        opened(folder, Credential(passphrase=SECOND))


def spoil(folder: Path, key_id: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flip a bit of a key object, or let the disk fail where it lies."""
    path = folder / "keys" / key_id
    if how == "rotted":
        content = bytearray(path.read_bytes())
        content[60] ^= 1
        path.write_bytes(content)
        return
    read = LocalStore.get

    def get(store: LocalStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name == f"keys/{key_id}":
            raise ObjectUnreadableError(f"can't read {name}", why="Input/output error")
        return read(store, name, offset, length)

    monkeypatch.setattr(LocalStore, "get", get)


def test_a_passphrase_opens_also_while_a_rotation_replaces_its_object(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed before the new object was there, and read when the old one had gone."""
    read = LocalStore.get

    def get(store: LocalStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("keys/"):
            monkeypatch.setattr(LocalStore, "get", read)
            rotate(LocalStore(folder), BOTH, cost=CHEAP)
        return read(store, name, offset, length)

    monkeypatch.setattr(LocalStore, "get", get)
    with opened(folder) as owner:
        assert restored(owner, "before") == noise(3)


def test_of_two_at_once_one_wins_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, wrap, rotated = LocalStore(folder), passphrases.wrap, []

    def wrap_after_the_other(*arguments: object, **options: object) -> object:
        if not rotated:
            monkeypatch.setattr(passphrases, "wrap", wrap)
            rotated.append(rotate(LocalStore(folder), BOTH, cost=CHEAP))
        return wrap(*arguments, **options)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(passphrases, "wrap", wrap_after_the_other)
    with pytest.raises(ConfigurationChangedError):
        rotate(store, BOTH, cost=CHEAP)

    for passphrase in BOTH:
        with opened(folder, Credential(passphrase=passphrase)) as owner:
            back_up(owner, noise(2, 7), run=f"by-{len(passphrase)}")
            assert restored(owner, f"by-{len(passphrase)}") == noise(2, 7)


def test_a_change_of_an_outdated_configuration_is_refused(folder: Path) -> None:
    with opened(folder) as owner:
        assert owner.unlocked
        store, config = owner.access.store, owner.access.config
        publish_next(store, config, owner.unlocked, revoked_writers=("00" * 16,))
        with pytest.raises(ConfigurationChangedError):
            publish_next(store, config, owner.unlocked, revoked_writers=())


def test_without_encryption_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    make_repository(tmp_path / "open", encrypted=False).close()
    with pytest.raises(NotEncryptedError):
        rotate(LocalStore(tmp_path / "open"), [b"x"])
