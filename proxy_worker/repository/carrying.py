"""Carrying chunks over to a twin as they are stored: neither opened, where the key can't, nor sealed again.

A chunk keeps its ciphertext, data key and nonce. Where the data key is sealed to the target's newest pair, it goes
over as it is; else, after a rotation, it is opened with the read key and sealed to that pair: what is stored from
then on opens with no older one.
"""

from __future__ import annotations

from typing import Final

import xxhash

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.data_keys import DataKeyOpener, SealedDataKey, seal_anew
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.index_run import Location, PackEntry
from proxy_worker.repository.keyring import public_key_id
from proxy_worker.repository.pack_layout import Chunk, ChunkKind, PackLayoutError
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError
from proxy_worker.repository.writer import DiskWriter

_PACKS_AT_HAND: Final = 64


class Carrier:
    """Carries blocks from a repository to a writer of its twin. Single-threaded."""

    def __init__(self, source: Repository, target: Repository, writer: DiskWriter) -> None:
        """`share_ids` holds for the two."""
        self.read_bytes = 0
        """Stored bytes that were read from the source."""
        self._source = source
        self._target = target
        self._writer = writer
        self._opener = DataKeyOpener(source.access.store, source.access.keyring, source.access.sealer)
        self._newest_pair = public_key_id(target.access.keyring.data_public_key)
        self._keys: dict[SealedDataKey, SealedDataKey] = {}
        self._checksums: dict[bytes, dict[int, bytes]] = {}
        self._plain = memoryview(bytearray(source.block_size))

    def carry(self, block_id: bytes) -> None:
        """Store a block that the writer doesn't have.

        With a read key it is opened and compared with its id before it is stored; else its stored bytes are
        compared with the checksum that the pack has of them. Every copy of a damaged one is tried. Raises
        `DamageError`, `CannotReadError`.
        """
        chunks, damage = self._source.chunks, None
        for attempt in range(2):
            if attempt:
                self._source.access.index.refresh()
            for location in chunks.locate(block_id, ChunkKind.BLOCK):
                try:
                    self._carry(location, block_id)
                except (ObjectNotFoundError, ObjectUnreadableError) as error:
                    damage = chunks.damage(location.pack.name, f"it can't be read: {error}")
                except PackLayoutError as error:
                    damage = chunks.damage(location.pack.name, str(error))
                except DamageError as error:
                    damage = error
                else:
                    return
        raise damage or chunks.missing(f"block {block_id.hex()}")

    def _carry(self, location: Location, block_id: bytes) -> None:
        source, writer = self._source, self._writer
        stored = memoryview(bytearray(location.stored_length))
        if source.access.store.read_into(location.pack.name, location.offset, stored) < len(stored):
            raise source.chunks.damage(location.pack.name, "it is cut short")
        self.read_bytes += len(stored)
        length = 0
        if source.can_read:
            length = source.chunks.open_block_into(location, block_id, stored, self._plain)
        elif xxhash.xxh3_128_digest(stored) != self._checksum(location):
            raise source.chunks.damage(location.pack.name, f"the chunk at {location.offset} has a wrong checksum")
        if location.block_count > 1:
            if not source.can_read:
                raise CannotReadError(
                    f"the chunk at {location.offset} of {location.pack.name}",
                    why="it holds several blocks, and a write key can't take it apart",
                    remedy="Use the passphrase or a read key.",
                )
            codec, data = writer.compress(self._plain[:length])
            writer.store_block(block_id, codec, data, length)
            return
        chunk = Chunk(
            location.offset,
            location.stored_length,
            location.nonce,
            location.plain_length,
            location.key_index,
            location.codec,
            location.kind,
            block_id,
        )
        writer.store_chunk(chunk, self._data_key(location), stored)

    def _checksum(self, location: Location) -> bytes | None:
        pack: PackEntry = location.pack
        known = self._checksums.get(pack.pack_id)
        if known is None:
            footer = read_footer(self._source.access.store, pack.pack_id, with_header=False)
            known = {offset: checksum for offset, _, checksum in footer}
            if len(self._checksums) >= _PACKS_AT_HAND:
                self._checksums.pop(next(iter(self._checksums)))
            self._checksums[pack.pack_id] = known
        return known.get(location.offset)

    def _data_key(self, location: Location) -> SealedDataKey | None:
        if not self._source.access.encrypted:
            return None
        if location.key_index >= len(location.pack.data_keys):
            raise self._source.chunks.damage(location.pack.name, "its index names a data key that it doesn't have")
        key = location.pack.data_keys[location.key_index]
        if key not in self._keys:
            self._keys[key] = self._for_target(key)
        return self._keys[key]

    def _for_target(self, key: SealedDataKey) -> SealedDataKey:
        if self._source.id == self._target.id and key.recipient == self._newest_pair:
            return key
        ring = self._target.access.keyring
        sealed = seal_anew(ring.repository_id, key.key_id, self._opener.unseal(key), ring.data_public_key)
        return SealedDataKey(key.key_id, public_key_id(ring.data_public_key), sealed)
