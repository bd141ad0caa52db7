"""Which chunks a collector moves out of packs that go."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import cast

from proxy_worker.repository.collector_copies import CopyJudge, give_up_copies
from proxy_worker.repository.collector_marks import Copy, CopyGroup, Index, chunks_to_move
from proxy_worker.repository.collector_needs import Needs
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import ChunkKind

ONE, OTHER = b"\1" * ID_BYTES, b"\2" * ID_BYTES
GOING, STAYING = 0, 1
SHARED = Copy(GOING, 36, 1000)
"""A chunk that holds both blocks, in the pack that goes."""
ELSEWHERE = Copy(STAYING, 36, 500)


class Told:
    """An index of just that chunk, and of another copy of one of its blocks."""

    def records(self, *_: int) -> Iterator[tuple[bytes, int, int, int, int]]:
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
