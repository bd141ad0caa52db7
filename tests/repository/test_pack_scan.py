"""A scan reads every chunk of every pack once, however it is shared between threads."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.pack_layout import Footer, pack_name
from proxy_worker.repository.pack_scan import ChunkTest, PackResult, pack_ids, scan_packs
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.writer import WriterLimits
from tests.repository.making import BLOCK, back_up, commit, make_repository, noise, write_disk

MIB = 1 << 20
LARGE = noise(20 * MIB // BLOCK)
"""Three shares: a thread takes 8 MiB of a pack at a time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one large pack and a small one."""
    folder = tmp_path_factory.mktemp("scanned")
    repository = make_repository(folder, blocks_per_segment=4096)
    commit(repository, write_disk(repository, LARGE, run="monday", limits=WriterLimits()), run="monday")
    back_up(repository, noise(1, 2), run="tuesday")
    return folder


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder)


def large_pack(store: LocalStore) -> tuple[bytes, Footer]:
    pack_id = max(pack_ids(store), key=lambda pack_id: store.size(pack_name(pack_id)))
    footer = read_footer(store, pack_id)
    assert footer.size_bytes > len(LARGE)
    return pack_id, footer


def test_each_chunk_is_tested_once_and_each_pack_told_of_once(store: LocalStore) -> None:
    tested: Counter[tuple[bytes, int]] = Counter()
    told: list[PackResult] = []

    def prepare(pack_id: bytes, _footer: Footer) -> ChunkTest:
        def test(number: int, _stored: memoryview) -> None:
            tested[pack_id, number] += 1

        return test

    scan_packs(store, prepare, told.append)

    packs = {pack_id: read_footer(store, pack_id) for pack_id in pack_ids(store)}
    assert tested == Counter(
        (pack_id, number) for pack_id, footer in packs.items() for number in range(len(footer))
    )
    assert sorted(result.pack_id for result in told) == sorted(packs)
    assert sum(result.read_bytes for result in told) == sum(footer.size_bytes for footer in packs.values())


def test_threads_share_a_large_pack(store: LocalStore) -> None:
    pack_id, _ = large_pack(store)
    both = threading.Barrier(2, timeout=120)
    seen: set[int] = set()

    def prepare(scanned: bytes, _footer: Footer) -> ChunkTest | None:
        def test(_number: int, _stored: memoryview) -> None:
            if threading.get_ident() not in seen and len(seen) < both.parties:
                seen.add(threading.get_ident())
                both.wait()

        return test if scanned == pack_id else None

    scan_packs(store, prepare, lambda _: None)

    assert len(seen) == both.parties


def test_damage_is_found_in_every_share(folder: Path, store: LocalStore) -> None:
    pack_id, footer = large_pack(store)
    entries = list(footer)
    hurt = [entries[0][0], entries[len(entries) // 2][0], entries[-1][0] + entries[-1][1] - 1]
    path = folder / pack_name(pack_id)
    whole = path.read_bytes()
    altered = bytearray(whole)
    for position in hurt:
        altered[position] ^= 1
    path.write_bytes(altered)
    told: dict[bytes, PackResult] = {}
    try:
        scan_packs(store, lambda *_: None, lambda result: told.update({result.pack_id: result}))
    finally:
        path.write_bytes(whole)

    bad = {entries[0][0], entries[len(entries) // 2][0], entries[-1][0]}
    assert told.pop(pack_id).bad_chunks == dict.fromkeys(bad, "has a wrong checksum")
    assert not any(result.summary for result in told.values())


def test_a_pack_that_is_deleted_while_it_is_read_is_passed_over(store: LocalStore) -> None:
    pack_id, _ = large_pack(store)

    class Deleting(LocalStore):
        """Has no more than the beginning of the large pack any more."""

        def read_into(self, name: str, offset: int, view: memoryview) -> int:
            if name == pack_name(pack_id) and offset > MIB:
                return LocalStore.read_into(self, f"{name}-deleted", offset, view)
            return super().read_into(name, offset, view)

    told: list[bytes] = []
    scan_packs(Deleting(Path(store.location)), lambda *_: None, lambda result: told.append(result.pack_id))

    assert sorted(told) == sorted(set(pack_ids(store)) - {pack_id})


def test_what_ends_a_scan_ends_all_threads_of_it(store: LocalStore) -> None:
    def stop(_result: PackResult) -> None:
        raise StoreError("the scan", why="it was to end")

    with pytest.raises(StoreError, match="it was to end"):
        scan_packs(store, lambda *_: None, stop)
