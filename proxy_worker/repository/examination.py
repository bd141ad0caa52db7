"""A look at one pack, chunk by chunk, as far as the index or its own table describes it: what of it can be had.

Where the pack's ends are damaged its chunks may be whole all the same: with a read key each is opened and compared
with its ids. Without one, blocks count as whole only if the footer is, and their checksum in it right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.damage import load_damage, record_damage
from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.findings import Finding
from proxy_worker.repository.fragments import RECORD, whole_fragments
from proxy_worker.repository.index_run import Location, PackEntry
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import Chunk, ChunkKind, PackLayoutError, pack_name
from proxy_worker.repository.packs import read_footer, read_table, require_table_checksum
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError


@dataclass(frozen=True)
class ExaminedPack:
    """What a pack holds, and which of it is whole."""

    pack_id: bytes
    group: str
    data_keys: tuple[SealedDataKey, ...]
    problem: str | None
    """What is wrong with it, or with the first of its chunks; None if nothing is."""
    whole: tuple[Chunk, ...]
    bad: tuple[Chunk, ...]

    @property
    def bad_ids(self) -> Iterator[bytes]:
        """Ids of what can't be had from it; a map is in its pack twice."""
        return iter(_ids_of(self.bad) - _ids_of(self.whole))

    def key_of(self, chunk: Chunk) -> SealedDataKey | None:
        """The data key of a chunk of blocks."""
        return self.data_keys[chunk.key_index] if chunk.kind == ChunkKind.BLOCK and self.data_keys else None


def _ids_of(chunks: Iterable[Chunk]) -> set[bytes]:
    return {chunk.ids[at : at + ID_BYTES] for chunk in chunks for at in range(0, len(chunk.ids), ID_BYTES)}


@dataclass(frozen=True)
class _Description:
    group: str
    data_keys: tuple[SealedDataKey, ...]
    chunks: tuple[Chunk, ...]


class _Record(NamedTuple):
    """`fragments.RECORD`, by name."""

    content_id: bytes
    pack: int
    offset: int
    stored_length: int
    nonce: int
    plain_length: int
    key_index: int
    codec: int
    kind: int
    place: int
    block_count: int
    zero: int


def examine_packs(access: Access, chunks: ChunkReader, pack_ids: Iterable[bytes]) -> Iterator[ExaminedPack]:
    """Examine packs, also such as aren't there; those that nothing describes are left out. Raises `StoreError`."""
    wanted = frozenset(pack_ids)
    described = _described_by_fragments(access, wanted)
    for pack_id in sorted(wanted):
        description = described.get(pack_id) or _described_by_itself(access, pack_id)
        if description is not None:
            yield _examined(access, chunks, pack_id, description)


def record_packs(access: Access, suspected: Mapping[bytes, str]) -> None:
    """Examine packs, by id with what is said to be wrong, and record what turns out to be damaged."""
    known = load_damage(access.store, access.sealer)
    examined = set()
    for pack in examine_packs(access, ChunkReader(access), suspected):
        examined.add(pack.pack_id)
        bad = {content_id for content_id in pack.bad_ids if (pack.pack_id, content_id) not in known.bad}
        if pack.problem is not None and (bad or pack.pack_id not in known.packs):
            record_damage(access, pack.pack_id, suspected[pack.pack_id] or pack.problem, bad)
    for pack_id in suspected.keys() - examined - known.packs:
        record_damage(access, pack_id, suspected[pack_id], ())


def record_findings(access: Access, findings: Iterable[Finding]) -> None:
    """Record the packs that a check has found damaged, so that the next backups store anew what they need."""
    names = {finding.name: finding.problem for finding in findings if finding.kind in {"pack", "missing pack"}}
    if names:
        access.index.refresh()
        record_packs(access, {bytes.fromhex(name.rpartition("/")[2]): why for name, why in names.items()})


def is_whole(access: Access, chunks: ChunkReader, location: Location, ids: bytes, stored: bytes) -> bool | None:
    """Whether a chunk opens and holds what its ids say; None if this key can't tell."""
    view = memoryview(stored)
    try:
        if location.kind != ChunkKind.BLOCK:
            chunks.open_metadata(location, ids, view)
            return True
        if access.encrypted and not access.keyring.can_read:
            return None
        plain = memoryview(chunks.open_chunk(location, ids, view))
    except CannotReadError:
        return None
    except DamageError:
        return False
    size, identify = access.block_size, access.keyring.block_id
    return all(
        identify(plain[place * size : (place + 1) * size]) == ids[place * ID_BYTES : (place + 1) * ID_BYTES]
        for place in range(len(ids) // ID_BYTES)
    )


def _examined(access: Access, chunks: ChunkReader, pack_id: bytes, description: _Description) -> ExaminedPack:
    name = pack_name(pack_id)
    checksums, problem = _checksums(access, pack_id)
    entry = PackEntry(pack_id, name, b"", 0, description.data_keys)
    whole, bad = [], []
    for chunk in description.chunks:
        location = Location._make((entry, *chunk[:7], 0, len(chunk.ids) // ID_BYTES))
        try:
            stored = access.store.get(name, chunk.offset, chunk.stored_length)
        except (ObjectNotFoundError, ObjectUnreadableError):
            stored = b""
        same = checksums.get(chunk.offset) == xxhash.xxh3_128_digest(stored)
        found = is_whole(access, chunks, location, chunk.ids, stored) if stored else False
        if found or (found is None and same):
            whole.append(chunk)
        else:
            bad.append(chunk)
            problem = problem or f"the chunk at {chunk.offset} is damaged"
    return ExaminedPack(pack_id, description.group, description.data_keys, problem, tuple(whole), tuple(bad))


def _checksums(access: Access, pack_id: bytes) -> tuple[dict[int, bytes], str | None]:
    """The checksums of a pack's chunks by offset, as far as its ends are whole, and what is wrong with those."""
    problem = None
    try:
        footer = read_footer(access.store, pack_id, with_header=False)
        try:
            read_footer(access.store, pack_id)
            require_table_checksum(access.store, pack_id, footer)
        except PackLayoutError as error:
            problem = str(error)
    except ObjectNotFoundError:
        return {}, "it is not there"
    except PackLayoutError as error:
        return {}, str(error)
    return {offset: checksum for offset, _, checksum in footer}, problem


def _described_by_fragments(access: Access, wanted: frozenset[bytes]) -> dict[bytes, _Description]:
    fragments = {
        run.fragment_of(number)
        for run in access.index.runs
        for number, (pack_id, _) in enumerate(run.pack_sizes())
        if pack_id in wanted
    }
    found: dict[bytes, _Description] = {}
    for _, fragment in whole_fragments(access.sealer, access.store, fragments):
        by_pack: dict[int, list[_Record]] = defaultdict(list)
        for record in map(_Record._make, RECORD.iter_unpack(fragment.records)):
            if fragment.packs[record.pack].pack_id in wanted:
                by_pack[record.pack].append(record)
        for number, records in by_pack.items():
            pack = fragment.packs[number]
            found[pack.pack_id] = _Description(pack.group, pack.data_keys, tuple(_chunks_of(records)))
    return found


def _chunks_of(records: Iterable[_Record]) -> Iterator[Chunk]:
    """The chunks that records speak of; each of a chunk's blocks has a record."""
    by_offset: dict[int, list[_Record]] = defaultdict(list)
    for record in records:
        by_offset[record.offset].append(record)
    for _, blocks in sorted(by_offset.items()):
        blocks.sort(key=lambda record: record.place)
        first = blocks[0]
        ids = b"".join(record.content_id for record in blocks)
        yield Chunk(
            first.offset,
            first.stored_length,
            first.nonce,
            first.plain_length,
            first.key_index,
            first.codec,
            first.kind,
            ids,
        )


def _described_by_itself(access: Access, pack_id: bytes) -> _Description | None:
    try:
        footer = read_footer(access.store, pack_id, with_header=False)
        table, signer = read_table(access.store, access.sealer, pack_id, footer)
    except (ObjectNotFoundError, PackLayoutError, DamageError):
        return None
    return _Description(signer.group, table.data_keys, tuple(table))
