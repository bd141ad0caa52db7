"""Moving what is needed out of packs that are mostly dead, as it is stored: without opening it.

A chunk keeps its data key, nonce and ciphertext; only its place changes. The old packs stay until the new ones, and
the fragments that describe them, are durable: before that everything is there twice.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import xxhash

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.index_run import group_digest
from proxy_worker.repository.keyring import ID_BYTES, Secrets
from proxy_worker.repository.new_packs import PACKS_PER_FRAGMENT, NewPacks
from proxy_worker.repository.pack_layout import Chunk, ChunkKind, Footer, PackLayoutError, PackTable, pack_name
from proxy_worker.repository.packs import PackBytes, WholePack, read_footer, read_table, unreadable_as_damage
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError

_FEW_CHUNKS: Final = 4
"""So few are sooner compared with the index than a signature is verified."""
_SMALL_BYTES: Final = 1 << 20
"""Packs up to this size are read at once, though not all of them may be needed."""


class ChunkDamagedError(ValueError):
    """A pack's chunk has another checksum than its footer says."""


class ChunkMover:
    """Moves chunks into new packs, those of each trust group into packs of their own."""

    def __init__(
        self,
        access: Access,
        packs: Packs,
        *,
        unlocked: Secrets | None,
        pack_bytes: int,
        after_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.moved_bytes = 0
        self.left: dict[int, str] = {}
        """Packs that had to stay, with the reason."""
        self._access = access
        self._packs = packs
        self._after_bytes = after_bytes
        self._made = NewPacks(access, unlocked=unlocked, pack_bytes=pack_bytes)
        self._sources: dict[str, list[int]] = defaultdict(list)
        """By trust group, packs whose chunks aren't all published yet."""

    @property
    def new_packs(self) -> int:
        """How many were made."""
        return self._made.count

    def move(self, offsets: Mapping[int, array[int]]) -> Iterator[int]:
        """Move the chunks at these offsets of these packs; yields each pack that nothing is needed of any more.

        Raises what `after_bytes` raises, which is told after each chunk how long it was.
        """
        try:
            for number, wanted in sorted(offsets.items()):
                group = self._take(number, frozenset(wanted))
                if group is not None and self._made.waiting(group) >= PACKS_PER_FRAGMENT:
                    yield from self._publish(group)
            for group in list(self._sources):
                yield from self._publish(group)
        finally:
            self._made.discard()

    def _take(self, number: int, wanted: frozenset[int]) -> str | None:
        access, pack_id = self._access, self._packs.ids[number]
        try:
            pack = self._opened(number)
            footer = read_footer(pack, pack_id)
            vouched = partial(self._is_vouched_for, pack_id, wanted) if len(wanted) <= _FEW_CHUNKS else None
            table, signer = read_table(pack, access.sealer, pack_id, footer, is_vouched_for=vouched)
            if not self._made.speaks_for(signer.group):
                self.left[number] = f"it is of trust group {signer.group}; use the passphrase"
                return None
            for chunk, stored in _stored(pack, pack_id, table, footer, wanted):
                self._put(signer.group, chunk, table, stored)
        except ObjectNotFoundError:
            return None
        except (PackLayoutError, DamageError, ChunkDamagedError) as error:
            self.left[number] = str(error)
            return None
        self._sources[signer.group].append(number)
        return signer.group

    def _is_vouched_for(self, pack_id: bytes, wanted: frozenset[int], table: PackTable, group: str) -> bool:
        """Whether the index knows each wanted chunk as the table has it, from fragments of the pack's own group."""
        digest = group_digest(group)

        def is_known(block_id: bytes, *told: int) -> bool:
            return any(
                tuple(copy[1:]) == told
                and (copy.pack.pack_id, copy.pack.group) == (pack_id, digest)
                and copy.pack.data_keys == table.data_keys
                for copy in self._access.index.find(block_id)
            )

        for chunk in table:
            if chunk.offset in wanted:
                ids = [chunk.ids[at : at + ID_BYTES] for at in range(0, len(chunk.ids), ID_BYTES)]
                if not all(is_known(one, *chunk[:7], place, len(ids)) for place, one in enumerate(ids)):
                    return False
        return True

    def _opened(self, number: int) -> PackBytes:
        if 0 < self._packs.size_bytes[number] <= _SMALL_BYTES:
            with suppress(ObjectUnreadableError):  # where nothing of it is needed, perhaps
                return WholePack(self._access.store, self._packs.ids[number])
        return self._access.store

    def _put(self, group: str, chunk: Chunk, table: PackTable, stored: bytes) -> None:
        key = None
        if chunk.kind == ChunkKind.BLOCK and table.data_keys:
            if chunk.key_index >= len(table.data_keys):
                raise ChunkDamagedError(f"the chunk at {chunk.offset} names a data key that it doesn't have")
            key = table.data_keys[chunk.key_index]
        self._made.put_stored(group, chunk, key, stored)
        self.moved_bytes += len(stored)
        self._after_bytes(len(stored))

    def _publish(self, group: str) -> Iterator[int]:
        """Make all that has been moved so far findable; only then are its sources dead."""
        self._made.publish(group)
        yield from self._sources.pop(group)


def _stored(
    pack: PackBytes, pack_id: bytes, table: PackTable, footer: Footer, wanted: frozenset[int]
) -> Iterator[tuple[Chunk, bytes]]:
    name = pack_name(pack_id)
    for chunk, (offset, length, checksum) in zip(table, footer, strict=True):
        if offset in wanted:
            with unreadable_as_damage():
                stored = pack.get(name, offset, length)
            if xxhash.xxh3_128_digest(stored) != checksum:
                raise ChunkDamagedError(f"the chunk at {offset} has a wrong checksum")
            yield chunk, stored
