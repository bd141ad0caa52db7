"""What a collector and retention will do to a repository, by hand."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec
import xxhash

from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings
from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.pack_layout import (
    FOOTER_ENTRY,
    Chunk,
    PackTable,
    footer_and_trailer,
    header_of,
    pack_name,
)
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.registration import encode_condemned
from proxy_worker.repository.repository import Repository

NOW = CollectorSettings(end_runs_after_s=0.0)
"""Runs that nobody has heard of for any time are ended."""


def packs(repository: Repository) -> set[bytes]:
    """The ids of all packs."""
    return set(pack_ids(repository.access.store))


def is_clean(repository: Repository) -> bool:
    """Whether a check has nothing to say."""
    report = check(repository.access)
    return report.findings == () and report.notes == ()


def condemn(repository: Repository, number: int, packs: Iterable[bytes], *, done: bool = False) -> None:
    """Publish a list of condemned packs."""
    store, sealer = repository.access.store, repository.access.sealer
    store.put_if_absent(f"condemned/{number}", [encode_condemned(sealer, number, packs)])
    if done:
        store.put_if_absent(f"condemned/{number}.done", [sealer.seal_object(f"condemned/{number}.done", b"")])


def end(repository: Repository, run: str, vm_id: str = "vm-1") -> None:
    """Mark a run as ended, as retention does before it deletes the point."""
    name = f"ended/{vm_id}/{run}"
    repository.access.store.put_if_absent(name, [repository.access.sealer.seal_object(name, b"")])


def withdraw(repository: Repository, run: str, vm_id: str = "vm-1") -> None:
    """Delete an ended point."""
    repository.access.store.delete(f"points/{vm_id}/{run}")


def put_pack(
    repository: Repository, data_keys: list[SealedDataKey], chunks: list[tuple[Chunk, bytes]]
) -> tuple[bytes, list[Chunk], int]:
    """Write a pack of chunks as they are stored; its id, its chunks as they lie in it, and its size."""
    access, pack_id = repository.access, secrets.token_bytes(16)
    body, footer, placed = bytearray(header_of(pack_id)), b"", []
    for chunk, stored in chunks:
        placed.append(chunk._replace(offset=len(body)))
        footer += FOOTER_ENTRY.pack(len(body), len(stored), xxhash.xxh3_128_digest(stored))
        body += stored
    table = PackTable.of(pack_id, data_keys, placed)
    sealed = access.sealer.seal_signed(pack_name(pack_id), msgspec.msgpack.encode(table))
    content = bytes(body) + sealed + footer_and_trailer(pack_id, footer, len(body), sealed)
    assert access.store.put_if_absent(pack_name(pack_id), [content])
    return pack_id, placed, len(content)


def put_fragment(
    repository: Repository, pack_id: bytes, data_keys: list[SealedDataKey], chunks: list[Chunk], size: int
) -> None:
    """Publish a pack's fragment."""
    access, name = repository.access, fragment_name(secrets.token_bytes(16))
    pack = FragmentPack(pack_id, size, "owner", tuple(data_keys))
    access.store.put_if_absent(name, [encode_fragment(access.sealer, name, [(pack, chunks)])])


def all_chunks(repository: Repository) -> tuple[list[SealedDataKey], list[tuple[Chunk, bytes]]]:
    """The data keys of all packs, and all chunks as they are stored, as one pack would have them."""
    store, sealer = repository.access.store, repository.access.sealer
    data_keys: list[SealedDataKey] = []
    chunks: list[tuple[Chunk, bytes]] = []
    for pack_id in pack_ids(store):
        table, _ = read_table(store, sealer, pack_id, read_footer(store, pack_id))
        for chunk in table:
            stored = store.get(pack_name(pack_id), chunk.offset, chunk.stored_length)
            chunks.append((chunk._replace(key_index=len(data_keys) + chunk.key_index), stored))
        data_keys.extend(table.data_keys)
    return data_keys, chunks


def move_chunks(repository: Repository) -> None:
    """Gather all chunks in one new pack, unchanged, then delete the old packs with their fragments."""
    store = repository.access.store
    old_packs, old_fragments = list(pack_ids(store)), list(fragments_in(store))
    data_keys, chunks = all_chunks(repository)
    new, placed, size = put_pack(repository, data_keys, chunks)
    put_fragment(repository, new, data_keys, placed, size)
    for fragment_id in old_fragments:
        store.delete(fragment_name(fragment_id))
    for pack_id in old_packs:
        store.delete(pack_name(pack_id))
