"""Which chunks a collector moves out of packs that go."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.collector_copies import CopyJudge, give_up_copies
from proxy_worker.repository.collector_marks import Copy, CopyGroup, Index, Record, chunks_to_move
from proxy_worker.repository.collector_needs import Needs
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.fragments import fragment_name
from proxy_worker.repository.identity import Envelope
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import ChunkKind, pack_name
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import all_chunks, packs, put_fragment, put_pack
from tests.repository.making import back_up, make_repository, noise, restore

ONE, OTHER = b"\1" * ID_BYTES, b"\2" * ID_BYTES
GOING, STAYING = 0, 1
SHARED = Copy(GOING, 36, 1000)
"""A chunk that holds both blocks, in the pack that goes."""
ELSEWHERE = Copy(STAYING, 36, 500)


class Told:
    """An index of just that chunk, and of another copy of one of its blocks."""

    def records(self, *_: int) -> Iterator[Record]:
        yield ONE, ChunkKind.BLOCK, *SHARED
        yield OTHER, ChunkKind.BLOCK, *SHARED
        yield ONE, ChunkKind.BLOCK, *ELSEWHERE


class Wanted:
    """Points need these blocks."""

    parts = 1

    def __init__(self, *blocks: bytes) -> None:
        self._blocks = set(blocks)

    def part(self, _: int) -> tuple[set[bytes], ...]:
        return self._blocks, set(), set()


class Counts:
    """Packs of which the one that stays is needed most."""

    def __init__(self) -> None:
        self.chunk_bytes = array("Q", (2000, 500))
        self.wanted_bytes = array("Q", (1000, 500))
        self.live_bytes = array("Q", (1000, 500))
        self.damaged: set[int] = set()


class Trusting:
    """Finds every copy whole."""

    def is_whole(self, *_: object) -> bool:
        return True


def test_a_chunk_moves_for_any_of_its_blocks_that_nothing_else_holds() -> None:
    needs, also = cast("Needs", Wanted(ONE, OTHER)), cast("Needs", Wanted())
    groups = [CopyGroup(ONE, ChunkKind.BLOCK, (SHARED, ELSEWHERE))]

    dropped = give_up_copies(cast("CopyJudge", Trusting()), cast("Packs", Counts()), groups, {GOING})
    moved = chunks_to_move(cast("Index", Told()), needs, also, {GOING}, dropped)

    assert len(dropped) == 1
    assert list(moved[GOING]) == [SHARED.offset]


@pytest.mark.parametrize("alike", [True, False], ids=["vouched for", "not"])
def test_a_table_without_a_signature_counts_only_if_fragments_say_the_same(tmp_path: Path, alike: bool) -> None:
    """Of each chunk that is taken out: who can seal metadata can make a table, but not sign for others."""
    with make_repository(tmp_path / "repository") as repository:
        back_up(repository, noise(3), run="old")
        kept = back_up(repository, noise(1), run="kept")
        pack_id = gather_unsigned(repository, alike=alike)
        end_point(repository.access, vm_id="vm-1", run="old")

        report = collect(repository, CollectorSettings(unused_percent=1.0))

        assert (report.rewritten_packs, pack_id not in packs(repository)) == ((1, True) if alike else (0, False))
        if alike:
            assert restore(repository, kept) == noise(1)
        else:
            assert "its signature is wrong" in " ".join(reason.why for reason in report.kept)


def gather_unsigned(repository: Repository, *, alike: bool) -> bytes:
    """Put all chunks into one pack whose table has no signature that holds, and let only that be there."""
    store = repository.access.store
    old_packs, old_fragments = packs(repository), list(fragments_in(store))
    keys, chunks = all_chunks(repository)

    def unsigned(self: MetadataSealer, name: str, payload: bytes) -> bytes:
        certificate = repository.access.keyring.identity.certificate
        return self.seal(name, msgspec.msgpack.encode(Envelope(payload, certificate, bytes(64))))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetadataSealer, "seal_signed", unsigned)
        made, placed, size = put_pack(repository, keys, chunks)
    told = placed if alike else [chunk._replace(nonce=chunk.nonce + 1) for chunk in placed]
    put_fragment(repository, made, keys, told, size)
    for name in (*map(fragment_name, old_fragments), *map(pack_name, old_packs)):
        store.delete(name)
    return made
