"""Reading chunks back: find a copy, open it, decompress it, and compare it with its id."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import zstandard
from cryptography.exceptions import InvalidTag

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.codec import Codec, Decompressor
from proxy_worker.repository.data_keys import DataKeyOpener, chunk_binding, nonce_of
from proxy_worker.repository.errors import MissingBlockError
from proxy_worker.repository.index_run import Location
from proxy_worker.repository.mending import MendedStore
from proxy_worker.repository.pack_layout import MAX_BLOCKS_IN_CHUNK, ChunkKind, PackLayoutError
from proxy_worker.repository.packs import metadata_name, read_footer, read_table
from proxy_worker.repository.sealing import TAG_BYTES
from proxy_worker.repository.store import Buffer, ObjectNotFoundError, ObjectUnreadableError, Store

T = TypeVar("T")
MAX_METADATA_BYTES: Final = 64 * 1024 * 1024
"""Larger maps or segments than this aren't believed: a map of 64 TiB has 2 MiB of segments and some MiB of
packs."""


class ChunkReader:
    """Reads any chunk of a repository. Thread-safe; each thread keeps one scratch buffer."""

    def __init__(self, access: Access) -> None:
        self._store = access.store
        self._mended: Store = MendedStore(access.store) if access.parity else access.store
        self._index = access.index
        self._keyring = access.keyring
        self._sealer = access.sealer
        self._encrypted = access.encrypted
        self._block_size = access.block_size
        self._keys = DataKeyOpener(access.store, access.keyring, access.sealer)
        self._decompressor = Decompressor()
        self._threads = threading.local()
        self._most_stored = MAX_BLOCKS_IN_CHUNK * access.block_size + TAG_BYTES

    def locate(self, content_id: bytes, kind: ChunkKind) -> list[Location]:
        """Every copy; none when the index knows of none, or only of some that are too long to be true."""
        most = self._most_stored if kind == ChunkKind.BLOCK else MAX_METADATA_BYTES
        return [
            location
            for location in self._index.find(content_id)
            if location.kind == kind and location.stored_length <= most
        ]

    def read_metadata(self, kind: ChunkKind, content_id: bytes) -> bytes:
        """A segment or an encoded map; raises `MissingBlockError`, or what is wrong with its only copy."""

        def read(store: Store, location: Location) -> bytes:
            stored = store.get(location.pack.name, location.offset, location.stored_length)
            return self.open_metadata(location, content_id, stored)

        return self._from_any_copy(content_id, kind, read)

    def open_metadata(self, location: Location, content_id: bytes, stored: Buffer) -> bytes:
        """The plain content of a metadata chunk, compared with its id; raises `RepositoryDamageError`."""
        kind = ChunkKind(location.kind)
        try:
            plain = self._sealer.open(metadata_name(kind, content_id), stored)
            if location.codec == Codec.ZSTD:
                if location.plain_length > MAX_METADATA_BYTES:
                    raise self.damage(location.pack.name, f"a {kind.name.lower()} in it is too long")
                plain = self._decompressor.decompress(plain, location.plain_length)
        except (DamageError, zstandard.ZstdError) as error:
            raise self.damage(
                location.pack.name, f"the {kind.name.lower()} at {location.offset} is damaged"
            ) from error
        named = self._keyring.segment_id if kind == ChunkKind.SEGMENT else self._keyring.map_id
        if named(plain) != content_id:
            raise self.damage(location.pack.name, f"the {kind.name.lower()} at {location.offset} is another one")
        return plain

    def open_block_into(self, location: Location, block_id: bytes, stored: memoryview, view: memoryview) -> int:
        """Open a stored chunk and put the block into `view`; its length. Raises `RepositoryDamageError`.

        `view` may be longer than the block, never shorter.
        """
        block = self.open_block(location, block_id, stored)
        if len(block) > len(view):
            raise self._too_long(location)
        view[: len(block)] = block
        return len(block)

    def open_block(self, location: Location, block_id: bytes, stored: memoryview) -> Buffer:
        """Open a stored chunk and return the block; good until this thread opens the next.

        Raises `RepositoryDamageError`.
        """
        if location.plain_length > self._block_size * location.block_count:
            raise self._too_long(location)
        if location.block_count > 1:
            return self._open_grouped(location, block_id, stored)
        plain = self.open_chunk(location, block_id, stored)
        if self._keyring.block_id(plain) != block_id:
            raise self.damage(location.pack.name, f"the block at {location.offset} is another one")
        return plain

    def open_chunk(self, location: Location, ids: bytes, stored: memoryview) -> Buffer:
        """Decrypt and decompress a chunk of blocks; good until this thread opens the next.

        Whether the blocks are those of `ids` is for the caller to see. Raises `RepositoryDamageError`.
        """
        try:
            plain: Buffer = self._decrypted(location, ids, stored)
            if location.codec == Codec.ZSTD:
                plain = self._decompressor.decompress(plain, location.plain_length)
        except (InvalidTag, ValueError, zstandard.ZstdError) as error:
            raise self.damage(location.pack.name, f"the chunk at {location.offset} is damaged") from error
        if len(plain) != location.plain_length:
            raise self.damage(location.pack.name, f"the chunk at {location.offset} is damaged")
        return plain

    def read_block_into(self, block_id: bytes, view: memoryview) -> int:
        """One block by its id, from any copy that is whole or that parity mends; the slow way, for when reading
        ahead has failed."""

        def read(store: Store, location: Location) -> int:
            stored = memoryview(bytearray(location.stored_length))
            store.read_into(location.pack.name, location.offset, stored)
            return self.open_block_into(location, block_id, stored, view)

        return self._from_any_copy(block_id, ChunkKind.BLOCK, read)

    def _from_any_copy(self, content_id: bytes, kind: ChunkKind, read: Callable[[Store, Location], T]) -> T:
        """What `read` makes of the first copy that it can read, as it lies or mended."""
        damage: DamageError | None = None
        for attempt, store in enumerate((self._store, self._mended)):
            if attempt:
                self._index.refresh()
            for location in self.locate(content_id, kind):
                try:
                    return read(store, location)
                except ObjectNotFoundError:
                    damage = self.damage(location.pack.name, "the pack is missing")
                except ObjectUnreadableError as error:
                    damage = self.damage(location.pack.name, f"it can't be read: {error.why}")
                except DamageError as error:
                    damage = error
        raise damage or self.missing(f"{kind.name.lower()} {content_id.hex()}")

    def scratch(self, length: int) -> memoryview:
        """This thread's buffer for stored bytes."""
        return self._buffer("stored", length)

    def damage(self, name: str, why: str) -> DamageError:
        """The error for an object that isn't right."""
        return self._sealer.damage(name, why)

    def missing(self, what: str) -> MissingBlockError:
        """The error for something that the index doesn't know."""
        why = "no index fragment knows it"
        if damaged := sorted(self._index.damaged):
            why += f", and these are damaged: {', '.join(damaged)}"
        return MissingBlockError(
            f"{what} of {self._store.location}",
            why=why,
            remedy="`proxy-worker repository reindex` rebuilds the index from the packs.",
        )

    def _decrypted(self, location: Location, ids: bytes, stored: memoryview) -> memoryview:
        if not self._encrypted:
            return stored
        if location.key_index >= len(location.pack.data_keys):
            raise ValueError("its data key is missing")
        cipher = self._keys.open(location.pack.data_keys[location.key_index])
        body = self._buffer("opened", location.stored_length - TAG_BYTES)
        cipher.decrypt_into(nonce_of(location.nonce), stored, chunk_binding(ids, location.codec), body)
        return body

    def _too_long(self, location: Location) -> DamageError:
        return self.damage(location.pack.name, f"the chunk at {location.offset} is longer than it should be")

    def _open_grouped(self, location: Location, block_id: bytes, stored: memoryview) -> memoryview:
        """A block that shares its chunk with others: the pack's table says which."""
        pack = location.pack
        try:
            # Without its header, which says nothing that the table doesn't, and that a flipped bit may be in.
            footer = read_footer(self._store, pack.pack_id, with_header=False)
            table, _ = read_table(self._store, self._sealer, pack.pack_id, footer)
            ids = next(chunk.ids for chunk in table if chunk.offset == location.offset)
        except (StopIteration, PackLayoutError) as error:
            raise self.damage(pack.name, f"its table doesn't describe the chunk at {location.offset}") from error
        plain = memoryview(self.open_chunk(location, ids, stored))
        begin = location.place * self._block_size
        block = plain[begin : begin + self._block_size]
        if self._keyring.block_id(block) != block_id:
            raise self.damage(pack.name, f"a block in the chunk at {location.offset} is another one")
        return block

    def _buffer(self, use: str, length: int) -> memoryview:
        held: memoryview | None = getattr(self._threads, use, None)
        if held is None or len(held) < length:
            held = memoryview(bytearray(length))
            setattr(self._threads, use, held)
        return held[:length]
