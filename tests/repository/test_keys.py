"""Who may open what: passphrases, write keys, read keys, and what each can't do."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from proxy_worker.repository import passphrases
from proxy_worker.repository.check import check
from proxy_worker.repository.config import encode_config, name_of
from proxy_worker.repository.credentials import Credential, KeyFile, load_credential, make_key_file, save_key_file
from proxy_worker.repository.data_keys import seal_name
from proxy_worker.repository.errors import (
    CannotReadError,
    KeyFileError,
    KeyFileExistsError,
    KeyInUseError,
    KeyNotFoundError,
    RepositoryExistsError,
    RepositoryNotFoundError,
    RepositoryVersionError,
    WrongKeyError,
    WrongPassphraseError,
)
from proxy_worker.repository.keyring import public_key_id
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.passphrases import EmptyPassphraseError
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import BlockSizeError, Repository, open_store
from proxy_worker.repository.rotation import remove_passphrase
from proxy_worker.repository.store.local import LocalStore
from tests.repository.making import CHEAP, CREDENTIAL, PASSPHRASE, back_up, make_repository, noise, restore, text


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def key_of(
    repository: Repository, kind: Literal["write", "read"] = "write", *, label: str = "p", group: str = "primary"
) -> Credential:
    assert repository.unlocked
    generation = repository.access.config.generation
    key = make_key_file(
        repository.unlocked, kind=kind, repository_id=repository.id, generation=generation, label=label, group=group
    )
    return Credential(key=key)


def reopened(repository: Repository, credential: Credential) -> Repository:
    return Repository.open(repository.access.store, credential)


def reconfigure(repository: Repository, **changes: object) -> None:
    """Publish the next generation of the configuration."""
    assert repository.unlocked
    config = msgspec.structs.replace(repository.access.config, generation=2, **changes)
    repository.access.store.put_if_absent(name_of(2), [encode_config(config, repository.unlocked.root_key)])


def test_the_wrong_passphrase_opens_nothing(repository: Repository) -> None:
    with pytest.raises(WrongPassphraseError, match="none of its keys opens"):
        reopened(repository, Credential(passphrase=b"wrong"))
    with pytest.raises(WrongPassphraseError, match="encrypted"):
        reopened(repository, Credential())


def test_any_passphrase_opens_and_the_last_can_not_go(repository: Repository) -> None:
    assert repository.unlocked
    store = repository.access.store
    second = passphrases.wrap(repository.unlocked, b"second", repository_id=repository.id, cost=CHEAP)
    passphrases.add(store, second)
    assert reopened(repository, Credential(passphrase=b"second")).id == repository.id

    [first] = [key.key_id for key in passphrases.keys(store) if key.key_id != second.key_id]
    remove_passphrase(store, first, b"second")
    with pytest.raises(WrongPassphraseError):
        reopened(repository, CREDENTIAL)
    with pytest.raises(KeyInUseError, match="last"):
        remove_passphrase(store, second.key_id, b"second")
    with pytest.raises(KeyNotFoundError, match="no such key"):
        remove_passphrase(store, first, b"second")


def test_a_key_that_an_interrupted_init_has_left_is_not_the_one_that_stays(
    repository: Repository, tmp_path: Path
) -> None:
    store = repository.access.store
    [own] = passphrases.keys(store)
    with make_repository(tmp_path / "interrupted") as other:
        [left] = passphrases.keys(other.access.store)
    passphrases.add(store, left)

    with pytest.raises(KeyInUseError, match="last"):
        remove_passphrase(store, own.key_id, PASSPHRASE)
    assert reopened(repository, CREDENTIAL).id == repository.id


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyPassphraseError):
        Repository.create(LocalStore(tmp_path), passphrase=b"")


def test_a_write_key_adds_but_reads_no_block(repository: Repository) -> None:
    back_up(repository, noise(3), run="first")
    with reopened(repository, key_of(repository)) as proxy:
        assert not proxy.can_read
        point = back_up(proxy, noise(3) + text(1), run="second")
        assert point.disks[0].stored_bytes < 8192, "it deduplicates against what the owner stored"
        with pytest.raises(CannotReadError):
            proxy.reader(point)
        report = check(proxy.access)
        assert report.findings == ()
        assert "a write key can't open them" in " ".join(report.notes)
    assert restore(repository, repository.point("vm-1", "second")) == noise(3) + text(1)


def test_a_write_key_finds_damaged_metadata_and_checksums(repository: Repository, tmp_path: Path) -> None:
    back_up(repository, noise(3), run="first")
    for pack_id in pack_ids(repository.access.store):
        path = tmp_path / "repository" / "packs" / pack_id.hex()[:2] / pack_id.hex()
        altered = bytearray(path.read_bytes())
        altered[30] ^= 1
        path.write_bytes(altered)

    with reopened(repository, key_of(repository)) as proxy:
        assert check(proxy.access).findings


def test_a_read_key_restores(repository: Repository) -> None:
    point = back_up(repository, noise(3), run="first")
    with reopened(repository, key_of(repository, "read")) as proxy:
        assert restore(proxy, point) == noise(3)


def test_a_key_of_another_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    with make_repository(tmp_path / "other") as other, pytest.raises(WrongKeyError, match=other.id):
        reopened(repository, key_of(other))


def test_a_configuration_signed_by_another_root_is_refused(repository: Repository, tmp_path: Path) -> None:
    """As a store would swap keys: same id, everything consistent, but not what the credential pins."""
    credential = key_of(repository)
    with make_repository(tmp_path / "other") as other:
        assert other.unlocked
        config = msgspec.structs.replace(
            other.access.config, repository_id=repository.id, root_public_key=other.unlocked.root_public_key
        )
        repository.access.store.replace("config/1", [encode_config(config, other.unlocked.root_key)])

    with pytest.raises(WrongKeyError):
        reopened(repository, credential)
    with pytest.raises(WrongKeyError, match="root key"):
        reopened(repository, CREDENTIAL)


def test_a_passphrase_does_not_open_a_configuration_in_clear(repository: Repository, tmp_path: Path) -> None:
    """A store that swaps in an unencrypted configuration must not be sent blocks in clear."""
    with make_repository(tmp_path / "other", encrypted=False) as other:
        repository.access.store.replace("config/1", [other.access.store.get("config/1")])

    with pytest.raises(WrongPassphraseError, match="not encrypted"):
        reopened(repository, CREDENTIAL)


def test_a_configuration_older_than_the_key_is_refused(repository: Repository) -> None:
    reconfigure(repository)
    credential = key_of(reopened(repository, CREDENTIAL))
    assert reopened(repository, credential).access.config.generation == 2
    repository.access.store.delete(name_of(2))

    with pytest.raises(WrongKeyError, match="generation 1"):
        reopened(repository, credential)


def test_another_format_version_is_refused_by_name(repository: Repository) -> None:
    store = repository.access.store
    store.replace("config/1", [store.get("config/1").replace(b'"version": 1', b'"version": 3')])

    with pytest.raises(RepositoryVersionError, match="version 3"):
        reopened(repository, CREDENTIAL)


def test_groups_deduplicate_apart(repository: Repository) -> None:
    with reopened(repository, key_of(repository, group="remote")) as remote:
        back_up(remote, noise(3), run="first")
    with reopened(repository, key_of(repository, group="primary")) as primary:
        assert back_up(primary, noise(3), run="second").disks[0].stored_bytes > len(noise(3))
    with reopened(repository, key_of(repository, group="primary")) as primary:
        assert back_up(primary, noise(3), run="third").disks[0].stored_bytes < 8192


def test_a_write_key_vouches_for_no_other_groups_packs_when_it_reindexes(repository: Repository) -> None:
    with reopened(repository, key_of(repository, group="remote")) as remote:
        back_up(remote, noise(3), run="first")
    for name in list(repository.access.store.list("index/")):
        repository.access.store.delete(name)

    with reopened(repository, key_of(repository, group="primary")) as primary:
        report = reindex(primary.access)
        assert report.packs == 0
        assert "trust group remote" in report.unreadable_packs[0]
        assert back_up(primary, noise(3), run="second").disks[0].stored_bytes > len(noise(3))
    assert reindex(repository.access).packs > 0
    assert restore(repository, repository.point("vm-1", "first")) == noise(3)


def test_a_writer_that_is_shut_out_counts_no_more(repository: Repository) -> None:
    back_up(repository, text(2), run="good")
    credential = key_of(repository)
    with reopened(repository, credential) as proxy:
        back_up(proxy, noise(3), run="bad")
        writer_id = proxy.access.keyring.identity.body.writer_id
    reconfigure(repository, revoked_writers=(writer_id.hex(),))

    with reopened(repository, CREDENTIAL) as owner:
        assert [point.run for point in owner.points()] == ["good"]
        assert "has been shut out" in str(owner.damaged_points["points/vm-1/bad"])
        assert back_up(owner, noise(3), run="again").disks[0].stored_bytes > len(noise(3))


def test_a_rotated_key_pair_reads_old_packs_by_their_new_seals(repository: Repository) -> None:
    """Rotation seals data keys anew; whoever holds only the new private key finds them under `seals/`."""
    point = back_up(repository, noise(2), run="first")
    access, fresh = repository.access, X25519PrivateKey.generate()
    hpke = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    public = fresh.public_key().public_bytes_raw()
    for pack_id in pack_ids(access.store):
        table, _ = read_table(access.store, access.sealer, pack_id, read_footer(access.store, pack_id))
        for key in table.data_keys:
            info = b"proxyfleet 1 data key\0" + access.keyring.repository_id + key.key_id
            plain = hpke.decrypt(key.sealed, access.keyring.openers[key.recipient], info)
            name = seal_name(key.key_id, public_key_id(public))
            sealed = hpke.encrypt(plain, fresh.public_key(), info)
            access.store.put_if_absent(name, [access.sealer.seal_object(name, sealed)])
    old = key_of(repository, "read").key
    assert old
    rotated = msgspec.structs.replace(old, data_public_key=public, data_private_keys=(fresh.private_bytes_raw(),))

    with reopened(repository, Credential(key=rotated)) as proxy:
        assert restore(proxy, point) == noise(2)


def test_key_files_are_their_owners_alone_and_never_overwritten(repository: Repository, tmp_path: Path) -> None:
    key = key_of(repository).key
    assert isinstance(key, KeyFile)
    path = tmp_path / "write.key"
    save_key_file(key, path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_credential(key_file=path).key is not None
    with pytest.raises(KeyFileExistsError, match="exists"):
        save_key_file(key, path)


def test_secrets_do_not_show(repository: Repository) -> None:
    key = key_of(repository, "read").key
    assert key
    for shown in (repr(key), repr(key_of(repository)), repr(key.keyring()), repr(repository.unlocked)):
        assert key.id_key.hex() not in shown
        assert repr(key.id_key)[2:-1] not in shown
        assert repr(key.data_private_keys[0])[2:-1] not in shown
    assert "secret" not in repr(Credential(passphrase=b"secret"))


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n"])
def test_a_passphrase_file_holds_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match="one line"):
        load_credential(passphrase_file=path)
    with pytest.raises(KeyFileError, match="none"):
        load_credential(passphrase_file=tmp_path / "none")


def test_the_line_end_is_no_part_of_the_passphrase(tmp_path: Path) -> None:
    for end in (b"", b"\n", b"\r\n"):
        (tmp_path / "passphrase").write_bytes(b"secret words" + end)
        assert load_credential(passphrase_file=tmp_path / "passphrase").passphrase == b"secret words"


@pytest.mark.parametrize("size", [0, 1000, 32 * 1024, 8 * 1024 * 1024, 3 * 64 * 1024])
def test_block_sizes_are_powers_of_two_within_bounds(tmp_path: Path, size: int) -> None:
    with pytest.raises(BlockSizeError):
        Repository.create(LocalStore(tmp_path), passphrase=None, block_size=size)


def test_a_place_holds_one_repository(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(RepositoryExistsError):
        make_repository(repository.access.store)
    with pytest.raises(RepositoryNotFoundError):
        open_store(str(tmp_path / "nowhere"))


def test_passphrases_can_be_tried_at_the_same_time(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    cost = passphrases.KdfCost(iterations=1, memory_kib=1024, lanes=4)
    made = Repository.create(store, passphrase=PASSPHRASE, kdf_cost=cost)
    with ThreadPoolExecutor(2) as threads:
        tries = [threads.submit(passphrases.unlock, store, PASSPHRASE, made.id) for _ in range(100)]
        assert all(attempt.result(timeout=120)[0] == made.unlocked for attempt in tries)
