"""Choosing which of several copies stays, and proving it before another goes.

A copy may go only if the one that stays was opened and compared with its id, or is the same bytes under the same
data key, as chunks that were moved are. So garbage that was stored under a right id never drives out the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.collector_marks import Copy, CopyGroup
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.index_run import Location
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError


class CopyJudge:
    """Says of copies whether they are what their id says."""

    def __init__(self, access: Access, packs: Packs) -> None:
        self._access = access
        self._packs = packs
        self._chunks = ChunkReader(access)
        self._opens = access.keyring.can_read or not access.encrypted
        self._scratch = memoryview(bytearray(access.block_size))

    def is_whole(self, group: CopyGroup, copy: Copy) -> bool:
        """Whether a copy opens and is what its id says; False for a block when this key doesn't open any."""
        location = self._location(group, copy)
        if location is None or (group.kind == ChunkKind.BLOCK and not self._opens):
            return False
        try:
            stored = self._access.store.get(location.pack.name, location.offset, location.stored_length)
            if group.kind == ChunkKind.BLOCK:
                self._chunks.open_block_into(location, group.content_id, memoryview(stored), self._scratch)
            else:
                self._chunks.open_metadata(location, group.content_id, stored)
        except (ObjectNotFoundError, ObjectUnreadableError, DamageError, CannotReadError):
            return False
        return True

    def same(self, group: CopyGroup, one: Copy, other: Copy) -> bool:
        """Whether two copies are one chunk, moved as it was: whatever opens one opens the other."""
        first, second = self._location(group, one), self._location(group, other)
        if first is None or second is None or _sealing(first) != _sealing(second):
            return False
        store = self._access.store
        try:
            return store.get(first.pack.name, first.offset, first.stored_length) == store.get(
                second.pack.name, second.offset, second.stored_length
            )
        except (ObjectNotFoundError, ObjectUnreadableError):
            return False

    def _location(self, group: CopyGroup, copy: Copy) -> Location | None:
        pack_id = self._packs.ids[copy.pack]
        found = self._chunks.locate(group.content_id, ChunkKind(group.kind))
        same = (place for place in found if place.pack.pack_id == pack_id and place.offset == copy.offset)
        return next(same, None)


def _sealing(location: Location) -> tuple[object, ...]:
    keys = location.pack.data_keys
    key = keys[location.key_index] if location.kind == ChunkKind.BLOCK and keys else None
    return (location.nonce, location.plain_length, location.codec, location.place, location.block_count, key)


def choose_copies(packs: Packs, groups: Iterable[CopyGroup]) -> None:
    """Count, for the time being, one copy of each group as the one that stays, and others in its pack: of a map
    there are two."""
    for group in groups:
        stays = preferred(packs, group).pack
        packs.live_bytes[stays] += sum(copy.stored_length for copy in group.copies if copy.pack == stays)


def preferred(packs: Packs, group: CopyGroup) -> Copy:
    """The copy in the pack that points need most of, rather than in one that is damaged; the same whenever it is
    asked with the same counts."""

    def worth(copy: Copy) -> tuple[bool, float, int]:
        needed = packs.wanted_bytes[copy.pack] / max(1, packs.chunk_bytes[copy.pack])
        return copy.pack not in packs.damaged, needed, -copy.pack

    return max(group.copies, key=worth)


def give_up_copies(
    judge: CopyJudge,
    packs: Packs,
    groups: Iterable[CopyGroup],
    leaving: set[int],
    *,
    go_on: Callable[[], None] = lambda: None,
) -> set[tuple[bytes, int, int]]:
    """For packs that are `leaving`, the (id, pack, offset) of copies that may go; the rest counts as live from now.

    Copies in packs that stay are left as they are, proven or not.
    """
    dropped: set[tuple[bytes, int, int]] = set()
    for group in groups:
        if not any(copy.pack in leaving for copy in group.copies):
            continue
        stays = preferred(packs, group)
        going = [copy for copy in group.copies if copy.pack != stays.pack and copy.pack in leaving]
        if not going:
            continue
        go_on()
        if not judge.is_whole(group, stays):
            # Another one that is whole takes its place, first of all one that needn't move.
            others = sorted(group.copies, key=lambda copy: (copy.pack in leaving, copy.pack))
            whole = next((copy for copy in others if copy != stays and judge.is_whole(group, copy)), None)
            if whole is not None:
                packs.live_bytes[whole.pack] += whole.stored_length
                going = [copy for copy in group.copies if copy != whole and copy.pack in leaving]
                dropped.update((group.content_id, copy.pack, copy.offset) for copy in going)
                continue
            # None can be opened: only what is the same chunk as the one that stays may go.
            for copy in going:
                if judge.same(group, stays, copy):
                    dropped.add((group.content_id, copy.pack, copy.offset))
                else:
                    packs.live_bytes[copy.pack] += copy.stored_length
            continue
        dropped.update((group.content_id, copy.pack, copy.offset) for copy in going)
    return dropped
