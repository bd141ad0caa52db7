"""What somebody with a write key can try, and what comes of it: a named error, never wrong data or a crash."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from proxy_worker.contract.errors import DamageError, StoreError
from proxy_worker.repository import documents, passphrases
from proxy_worker.repository.check import check
from proxy_worker.repository.codec import Codec
from proxy_worker.repository.collector import collect
from proxy_worker.repository.data_keys import chunk_binding, new_data_key, nonce_of
from proxy_worker.repository.fragments import Fragment, FragmentPack, fragment_name, records_of
from proxy_worker.repository.index_run import IndexRun
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import Chunk, ChunkKind
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.passphrases import KdfCost
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import put_fragment, put_pack
from tests.repository.making import (
    BLOCK,
    KEY,
    PASSPHRASE,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    text,
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path)


def store_garbage(repository: Repository, block: bytes) -> None:
    """Publish a pack that holds something else under the block's id."""
    with repository.begin_disk(vm_id="vm-9", run="evil", disk_key=KEY, fence=1) as writer:
        writer.store_block(writer.identify(block), Codec.PLAIN, bytes(len(block)), len(block))
        assert writer.wait_durable(writer.mark(), timeout_s=120)


def put_raw_fragment(repository: Repository, fragment: Fragment) -> str:
    name = fragment_name(bytes(16))
    sealed = repository.access.sealer.seal_object(name, msgspec.msgpack.encode(fragment))
    repository.access.store.put_if_absent(name, [sealed])
    return name


def test_garbage_under_a_right_id_is_never_restored(repository: Repository) -> None:
    store_garbage(repository, noise(1))
    point = back_up(repository, noise(1), run="run-1")

    with pytest.raises(DamageError, match="is another one"):
        restore(repository, point)
    [finding] = check(repository.access).findings
    assert "holds other blocks than the table says" in finding.problem
    assert [use.vm for use in finding.needed_by or ()] == ["web01"]


def test_a_good_copy_stands_in_for_garbage(repository: Repository) -> None:
    point = back_up(repository, noise(1), run="run-1")
    for _ in range(3):
        with repository.begin_disk(vm_id="vm-9", run="evil", disk_key=KEY, fence=1) as writer:
            writer.store_block(writer.identify(noise(1)), Codec.PLAIN, bytes(BLOCK), BLOCK)
            writer.wait_durable(writer.mark())

    assert restore(repository, point) == noise(1)
    assert {finding.needed_by for finding in check(repository.access).findings} == {()}


def test_a_fragment_that_misplaces_a_block_is_named(repository: Repository) -> None:
    point = back_up(repository, noise(1), run="run-1")
    [pack_id, *_] = pack_ids(repository.access.store)
    chunk = Chunk(25, 100, 0, BLOCK, 0, 0, ChunkKind.BLOCK, repository.access.keyring.block_id(noise(1)))
    name = put_raw_fragment(
        repository, Fragment((FragmentPack(pack_id, 0, "", ()),), b"".join(records_of([chunk], 0)))
    )

    assert restore(repository, point) == noise(1)
    assert name in {finding.name for finding in check(repository.access).findings}


@pytest.mark.parametrize("length", [60, 59], ids=["names no pack", "cut"])
def test_a_fragment_of_nonsense_is_damaged(repository: Repository, length: int) -> None:
    point = back_up(repository, noise(1), run="run-1")
    chunk = Chunk(24, 100, 0, BLOCK, 0, 0, ChunkKind.BLOCK, b"x" * 32)
    name = put_raw_fragment(repository, Fragment((), b"".join(records_of([chunk], 7))[:length]))

    assert restore(repository, point) == noise(1)
    assert [finding.name for finding in check(repository.access).findings] == [name]


def test_a_table_that_does_not_add_up_is_damaged(repository: Repository) -> None:
    key, _ = new_data_key(repository.access.keyring)
    stored = b"whatever"
    chunk = Chunk(24, len(stored), 0, BLOCK, 0, 0, ChunkKind.BLOCK, b"i" * 32 * 17)
    pack_id, _, _ = put_pack(repository, [key], [(chunk, stored)])

    [finding] = check(repository.access).findings
    assert finding.name.endswith(pack_id.hex())
    assert "not whole" in finding.problem


def test_a_chunk_of_no_known_kind_is_damaged(repository: Repository) -> None:
    key, _ = new_data_key(repository.access.keyring)
    stored = b"whatever"
    put_pack(repository, [key], [(Chunk(24, len(stored), 0, BLOCK, 0, 0, 7, b"i" * 32), stored)])

    [finding] = check(repository.access).findings
    assert "not whole" in finding.problem


def test_another_key_under_a_packs_key_id_hurts_only_its_own_pack(repository: Repository) -> None:
    point, access = back_up(repository, noise(1), run="run-1"), repository.access
    [pack_id] = pack_ids(access.store)
    table, _ = read_table(access.store, access.sealer, pack_id, read_footer(access.store, pack_id))
    other, _ = new_data_key(access.keyring)
    plain, info = secrets.token_bytes(32), b"proxyfleet 1 data key\0" + access.keyring.repository_id
    hpke = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    key_id = table.data_keys[0].key_id
    other = msgspec.structs.replace(
        other, key_id=key_id, sealed=hpke.encrypt(plain, access.keyring.recipient, info + key_id)
    )
    block_id = access.keyring.block_id(text(1))
    stored = AESGCM(plain).encrypt(nonce_of(0), text(1), chunk_binding(block_id, Codec.PLAIN))
    chunk = Chunk(24, len(stored), 0, BLOCK, 0, Codec.PLAIN, ChunkKind.BLOCK, block_id)
    evil, placed, size = put_pack(repository, [other], [(chunk, stored)])
    put_fragment(repository, evil, [other], placed, size)
    evils = back_up(repository, text(1), run="run-2")

    assert restore(repository, evils) == text(1)
    assert restore(repository, point) == noise(1)


def test_a_record_that_claims_gigabytes_is_not_believed(repository: Repository) -> None:
    block = noise(1)
    chunk = Chunk(24, 0xFFFF_FFFF, 0, BLOCK, 0, 0, ChunkKind.BLOCK, repository.access.keyring.block_id(block))
    put_raw_fragment(repository, Fragment((FragmentPack(bytes(16), 0, "", ()),), b"".join(records_of([chunk], 0))))

    assert restore(repository, back_up(repository, block, run="run-1")) == block


def test_a_segment_that_is_no_list_of_ids_stops_a_collection(repository: Repository) -> None:
    back_up(repository, noise(4), run="old")
    end_point(repository.access, vm_id=VM.vm_id, run="old")
    with repository.begin_disk(vm_id=VM.vm_id, run="false", disk_key=KEY, fence=1) as writer:
        ids = b"x" * (ID_BYTES + 1)
        segment = repository.access.keyring.segment_id(ids)
        writer._store_metadata(ChunkKind.SEGMENT, segment, ids)  # `store_segment` would refuse it
        disk = writer.finish(size_bytes=BLOCK, segments=[segment], report=report_of(writer, BLOCK))
    commit(repository, disk, run="false")
    before = set(pack_ids(repository.access.store))

    with pytest.raises(DamageError, match="not a list of ids"):
        collect(repository)
    assert set(pack_ids(repository.access.store)) == before


def test_a_key_object_that_asks_for_endless_work_is_refused(repository: Repository) -> None:
    store = repository.access.store
    [key] = passphrases.keys(store)
    for cost in (KdfCost(iterations=2**31), KdfCost(memory_kib=2**31), KdfCost(lanes=0), KdfCost(lanes=2**20)):
        store.replace(f"keys/{key.key_id}", [documents.seal(msgspec.structs.replace(key, cost=cost))])
        with pytest.raises(DamageError, match="more work"):
            passphrases.unlock(store, PASSPHRASE, repository.id)


def test_a_delivery_that_breaks_ends_those_who_wait(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in the background thread must not leave the writer waiting for ever."""
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    monkeypatch.setattr(
        "proxy_worker.repository.delivery.encode_fragment", lambda *_: (_ for _ in ()).throw(ZeroDivisionError)
    )
    with repository.begin_disk(vm_id="vm-1", run="run-1", disk_key=KEY, fence=1) as writer:
        writer.store_block(writer.identify(noise(1)), Codec.PLAIN, noise(1), BLOCK)
        with pytest.raises(StoreError, match="delivery of packs broke"):
            writer.wait_durable(writer.mark(), timeout_s=120)
        with pytest.raises(StoreError, match="delivery of packs broke"):
            writer.store_block(writer.identify(noise(1, 2)), Codec.PLAIN, noise(1, 2), BLOCK)


def test_runs_are_only_of_this_format(repository: Repository, tmp_path: Path) -> None:
    back_up(repository, noise(1), run="run-1")
    repository.access.index.refresh()
    [run] = repository.access.index.runs
    whole, path = run.path.read_bytes(), tmp_path / "x.run"
    many_bits = whole[:8] + (1 << 31).to_bytes(4, "little") + whole[12:]
    for content in (bytes(1000), whole[:20], whole[:-1], whole + b"\0", many_bits):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole run"):
            IndexRun(path)
