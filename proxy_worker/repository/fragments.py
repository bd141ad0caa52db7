"""Index fragments: for each block, segment and map in a few packs, where it lies.

A fragment describes at most some dozens of packs and is read whole; what makes the index of a large repository
searchable in constant memory is the cache that every reader and writer builds of it (`index.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.identity import CertificateBody
from proxy_worker.repository.keyring import ID_BYTES, OWNER_GROUP
from proxy_worker.repository.pack_layout import Chunk
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store

RECORD: Final = struct.Struct("<32sIIIIIHBBBBH")
"""Id, pack (its place in the list of packs), offset, stored length, nonce counter, plain length, data key (its
place in the pack's list), codec, kind, place of the block in its chunk, blocks in the chunk, zero."""
_PACK: Final = struct.Struct("<32xI24x")
PACK_FIELD: Final = slice(ID_BYTES, ID_BYTES + 4)
PLACE: Final = struct.Struct("<II")
"""Of a record, behind the id: pack and offset."""
KIND_FIELD: Final = ID_BYTES + 23
PLACED: Final = struct.Struct("<32sIII11xB4x")
"""Of a record: id, pack, offset, stored length and kind."""


class FragmentPack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A pack that a fragment describes."""

    pack_id: bytes
    size_bytes: int
    group: str
    """Trust group of the pack's writer; counts only where the owner says it, else the fragment's signer's does."""
    data_keys: tuple[SealedDataKey, ...]


class Fragment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A fragment's payload."""

    packs: tuple[FragmentPack, ...]
    records: bytes
    """`RECORD`s, sorted."""


def fragment_name(fragment_id: bytes) -> str:
    """Where a fragment lies."""
    return f"index/{fragment_id.hex()}"


def records_of(chunks: Iterable[Chunk], pack: int) -> Iterator[bytes]:
    """One record for each id of each chunk."""
    for offset, stored, nonce, plain, key_index, codec, kind, ids in chunks:
        count = len(ids) // ID_BYTES
        if count == 1:
            yield RECORD.pack(ids, pack, offset, stored, nonce, plain, key_index, codec, kind, 0, 1, 0)
            continue
        for place in range(count):
            block_id = ids[place * ID_BYTES : (place + 1) * ID_BYTES]
            yield RECORD.pack(block_id, pack, offset, stored, nonce, plain, key_index, codec, kind, place, count, 0)


def encode_fragment(
    sealer: MetadataSealer, name: str, packs: Iterable[tuple[FragmentPack, Iterable[Chunk]]]
) -> bytes:
    """The object that describes these packs."""
    described: list[FragmentPack] = []
    records: list[bytes] = []
    for place, (pack, chunks) in enumerate(packs):
        described.append(pack)
        records.extend(records_of(chunks, place))
    return encode_records(sealer, name, described, records)


def encode_records(
    sealer: MetadataSealer, name: str, packs: Iterable[FragmentPack], records: Iterable[bytes]
) -> bytes:
    """The same from records, whose pack numbers are places in `packs`."""
    fragment = Fragment(tuple(packs), b"".join(sorted(records)))
    return sealer.seal_object(name, msgspec.msgpack.encode(fragment))


def decode_fragment(sealer: MetadataSealer, name: str, data: bytes) -> Fragment:
    """The reverse, with each pack's trust group settled; raises `RepositoryDamageError`."""
    payload, signer = sealer.open_object(name, data)
    try:
        fragment = msgspec.msgpack.decode(payload, type=Fragment)
    except msgspec.MsgspecError as error:
        raise sealer.damage(name, f"it is not a fragment: {error}") from error
    records = fragment.records
    if len(records) % RECORD.size or any(number >= len(fragment.packs) for (number,) in _PACK.iter_unpack(records)):
        raise sealer.damage(name, "its records are not whole, or of packs that it doesn't name")
    return fragment if signer.group == OWNER_GROUP else _in_group(fragment, signer)


def whole_fragments(
    sealer: MetadataSealer, store: Store, fragment_ids: Iterable[bytes]
) -> Iterator[tuple[str, Fragment]]:
    """Those that are there and whole, with their names; the others are left out."""
    for fragment_id in fragment_ids:
        name = fragment_name(fragment_id)
        try:
            fragment = decode_fragment(sealer, name, store.get(name))
        except (ObjectNotFoundError, ObjectUnreadableError, DamageError):
            continue
        yield name, fragment


def _in_group(fragment: Fragment, signer: CertificateBody) -> Fragment:
    packs = tuple(msgspec.structs.replace(pack, group=signer.group) for pack in fragment.packs)
    return msgspec.structs.replace(fragment, packs=packs)
