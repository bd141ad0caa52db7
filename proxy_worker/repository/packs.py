"""Writing packs, and reading what they say of themselves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy_worker.repository.codec import Codec, Compressor
from proxy_worker.repository.data_keys import SealedDataKey, chunk_binding, new_data_key, nonce_of
from proxy_worker.repository.identity import CertificateBody
from proxy_worker.repository.keyring import Keyring
from proxy_worker.repository.pack_layout import (
    FOOTER_ENTRY,
    HEADER_BYTES,
    PACK_ID_BYTES,
    TRAILER_BYTES,
    Chunk,
    ChunkKind,
    Footer,
    PackLayoutError,
    PackTable,
    footer_and_trailer,
    footer_length,
    header_of,
    pack_name,
    parse_footer,
)
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.parity_object import GuardedObject
from proxy_worker.repository.sealing import TAG_BYTES, MetadataSealer
from proxy_worker.repository.store import Buffer, ObjectUnreadableError, Store, StoreWriter

BUFFER_BYTES: Final = 1024 * 1024


def metadata_name(kind: ChunkKind, content_id: bytes) -> str:
    """What a metadata chunk is sealed as; it says nothing of where the chunk lies."""
    return f"{kind.name.lower()}/{content_id.hex()}"


@dataclass(frozen=True, slots=True)
class ClosedPack:
    """A pack written to its end, not yet durable."""

    pack_id: bytes
    data_keys: tuple[SealedDataKey, ...]
    chunks: tuple[Chunk, ...]
    size_bytes: int
    object: StoreWriter


class PackWriter:
    """One open pack. Single-threaded."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        sealer: MetadataSealer,
        *,
        encrypted: bool,
        parity: Parity | None,
        buffer: bytearray,
    ) -> None:
        self.pack_id = secrets.token_bytes(PACK_ID_BYTES)
        self._keyring = keyring
        self._sealer = sealer
        self._cipher: AESGCM | None = None
        self._data_keys: tuple[SealedDataKey, ...] = ()
        if encrypted:
            key, self._cipher = new_data_key(keyring)
            self._data_keys = (key,)
        self._key_places = {key: place for place, key in enumerate(self._data_keys)}
        self._object: StoreWriter = (
            GuardedObject(store, self.pack_id, parity) if parity else store.create(pack_name(self.pack_id))
        )
        self._buffer = memoryview(buffer)
        self._used = 0
        self._written = 0
        self._chunks: list[Chunk] = []
        self._footer = bytearray()
        self._append(header_of(self.pack_id))

    @property
    def size_bytes(self) -> int:
        """Bytes so far."""
        return self._written + self._used

    @property
    def chunk_count(self) -> int:
        """Chunks so far."""
        return len(self._chunks)

    def add_block(self, block_id: bytes, codec: Codec, data: Buffer, plain_length: int) -> int:
        """Seal a block and append it; the stored length."""
        nonce, length = len(self._chunks), len(data)
        stored = length + TAG_BYTES if self._cipher else length
        space = self._room(stored)
        if self._cipher:
            self._cipher.encrypt_into(nonce_of(nonce), data, chunk_binding(block_id, codec), space)
        else:
            space[:] = data
        self._enter(Chunk(self.size_bytes, stored, nonce, plain_length, 0, codec, ChunkKind.BLOCK, block_id), space)
        self._used += stored
        return stored

    def add_metadata(self, kind: ChunkKind, content_id: bytes, plain: Buffer, compressor: Compressor) -> int:
        """Seal a segment or a map and append it; the stored length."""
        codec, data = compressor.compress(plain)
        sealed = self._sealer.seal(metadata_name(kind, content_id), data)
        chunk = Chunk(self.size_bytes, len(sealed), len(self._chunks), len(plain), 0, codec, kind, content_id)
        self._enter(chunk, sealed)
        self._append(sealed)  # the map of a disk of many terabytes is larger than the buffer
        return len(sealed)

    def add_stored(self, chunk: Chunk, key: SealedDataKey | None, stored: Buffer) -> None:
        """Append a chunk of another pack as it is, with the data key that it was sealed with."""
        place = 0
        if key is not None:
            place = self._key_places.setdefault(key, len(self._data_keys))
            if place == len(self._data_keys):
                self._data_keys = (*self._data_keys, key)
        self._enter(chunk._replace(offset=self.size_bytes, key_index=place), stored)
        self._append(stored)

    def close(self) -> ClosedPack:
        """Write table, footer and trailer."""
        name = pack_name(self.pack_id)
        table = PackTable.of(self.pack_id, self._data_keys, self._chunks)
        sealed = self._sealer.seal_signed(name, msgspec.msgpack.encode(table))
        table_offset = self.size_bytes
        self._append(sealed)
        self._append(footer_and_trailer(self.pack_id, bytes(self._footer), table_offset, sealed))
        self._spill()
        return ClosedPack(self.pack_id, self._data_keys, tuple(self._chunks), self._written, self._object)

    def discard(self) -> None:
        """Drop it."""
        self._object.discard()

    def _enter(self, chunk: Chunk, stored: Buffer) -> None:
        self._footer += FOOTER_ENTRY.pack(chunk.offset, chunk.stored_length, xxhash.xxh3_128_digest(stored))
        self._chunks.append(chunk)

    def _room(self, length: int) -> memoryview:
        if self._used + length > len(self._buffer):
            self._spill()
        return self._buffer[self._used : self._used + length]

    def _append(self, data: Buffer) -> None:
        if self._used + len(data) > len(self._buffer):
            self._spill()
        if len(data) > len(self._buffer):
            self._object.write(data)
            self._written += len(data)
        else:
            self._buffer[self._used : self._used + len(data)] = data
            self._used += len(data)

    def _spill(self) -> None:
        self._object.write(self._buffer[: self._used])
        self._written += self._used
        self._used = 0


class PackBytes(Protocol):
    """What gives the bytes of a pack: a store, or a pack that was read whole."""

    def get(self, name: str, /, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""

    def size(self, name: str, /) -> int:
        """See `Store`."""


class WholePack:
    """A small pack that was read at once, which is cheaper than part by part."""

    def __init__(self, store: Store, pack_id: bytes) -> None:
        """Read it. Raises `StoreError`."""
        self._data = store.get(pack_name(pack_id))

    def get(self, _name: str, /, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        return self._data[offset : None if length is None else offset + length]

    def size(self, _name: str, /) -> int:
        """See `Store`."""
        return len(self._data)


@contextmanager
def unreadable_as_damage() -> Iterator[None]:
    """What the disk can't read is as good as altered: raise `PackLayoutError` for `ObjectUnreadableError`."""
    try:
        yield
    except ObjectUnreadableError as error:
        raise PackLayoutError(f"it can't be read: {error.why}") from error


@unreadable_as_damage()
def read_footer(store: PackBytes, pack_id: bytes, *, with_header: bool = True) -> Footer:
    """What a pack says in clear, verified; raises `PackLayoutError`, `ObjectNotFoundError`.

    Its header says no more than its name: without it, a pack passes of which only that is damaged.
    """
    name = pack_name(pack_id)
    size_bytes = store.size(name)
    if size_bytes < HEADER_BYTES + TRAILER_BYTES:
        raise PackLayoutError("it is cut short")
    trailer = store.get(name, size_bytes - TRAILER_BYTES, TRAILER_BYTES)
    length = footer_length(trailer)
    if size_bytes < HEADER_BYTES + TRAILER_BYTES + length:
        raise PackLayoutError("it is cut short")
    entries = store.get(name, size_bytes - TRAILER_BYTES - length, length)
    header = store.get(name, 0, HEADER_BYTES) if with_header else header_of(pack_id)
    return parse_footer(pack_id, header, entries, trailer, size_bytes)


def read_table(
    store: PackBytes,
    sealer: MetadataSealer,
    pack_id: bytes,
    footer: Footer,
    *,
    is_vouched_for: Callable[[PackTable, str], bool] | None = None,
) -> tuple[PackTable, CertificateBody]:
    """A pack's table and who signed it; raises `PackLayoutError`, or `RepositoryDamageError` when it doesn't
    open.

    Where something that was verified says the same of what is taken from the table, as of its trust group,
    `is_vouched_for` may say so: then its own signature, which takes most of the time, isn't verified.
    """
    name = pack_name(pack_id)
    sealed = require_table_checksum(store, pack_id, footer)
    payload, signer = (sealer.open_claimed if is_vouched_for else sealer.open_signed)(name, sealed)
    try:
        table = msgspec.msgpack.decode(payload, type=PackTable)
    except msgspec.MsgspecError as error:
        raise PackLayoutError(f"its table is not one: {error}") from error
    if table.pack_id != pack_id or not table.is_whole():
        raise PackLayoutError("its table is another pack's, or not whole")
    described = [(chunk.offset, chunk.stored_length) for chunk in table]
    if described != [(offset, length) for offset, length, _ in footer]:
        raise PackLayoutError("its table and its footer disagree")
    if is_vouched_for and not is_vouched_for(table, signer.group):
        _, signer = sealer.open_signed(name, sealed)
    return table, signer


@unreadable_as_damage()
def require_table_checksum(store: PackBytes, pack_id: bytes, footer: Footer) -> bytes:
    """A pack's sealed table, compared with its checksum; raises `PackLayoutError`."""
    sealed = store.get(pack_name(pack_id), footer.table_offset, footer.table_length)
    if xxhash.xxh3_128_digest(sealed) != footer.table_checksum:
        raise PackLayoutError("the checksum of its table is wrong")
    return sealed
