"""What of a repository is whole: the memory of a check, small where little is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.findings import FindingKind
from proxy_worker.repository.fragments import (
    PLACE,
    RECORD,
    Fragment,
    FragmentPack,
    records_of,
    whole_fragments,
)
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.index_run import IndexRun, Location, RunSource, fragment_source, write_run
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.pack_layout import Chunk, PackLayoutError, PackTable, pack_name
from proxy_worker.repository.pack_scan import PackResult
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.store import ObjectNotFoundError

_ORPHAN_RECORDS: Final = 200_000
"""Records of packs without a fragment that are gathered for one run."""


class Cause(NamedTuple):
    """An object that is to blame."""

    kind: FindingKind
    name: str
    problem: str


_NO_FRAGMENT: Final = Cause(
    "index fragment", "index/", "no fragment describes some packs; `proxy-worker repository reindex` makes one"
)


class Soundness:
    """Gathers what is wrong with packs and fragments, then answers why an id can't be had.

    `is_indexed` may be called from any thread, the rest from one at a time.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self.pack_count = 0
        self.read_bytes = 0
        self.orphans: list[bytes] = []
        """Packs that no readable fragment describes."""
        self._bad_packs: dict[bytes, Cause] = {}
        self._bad_chunks: dict[tuple[bytes, int], Cause] = {}
        self._missing_packs: dict[bytes, Cause] = {}
        self._false_records: dict[tuple[bytes, int], Cause] = {}
        self._orphan_runs: list[IndexRun] = []

    def note_pack(self, result: PackResult) -> None:
        """A pack has been read."""
        self.pack_count += 1
        self.read_bytes += result.read_bytes
        if summary := result.summary:
            cause = Cause("pack", pack_name(result.pack_id), summary)
            if result.problem:
                self._bad_packs[result.pack_id] = cause
            for offset in result.bad_chunks:
                self._bad_chunks[result.pack_id, offset] = cause

    def note_missing_pack(self, pack_id: bytes) -> None:
        """A fragment describes a pack that isn't there."""
        self._missing_packs[pack_id] = Cause("missing pack", pack_name(pack_id), "it is not there")

    def note_false_record(self, fragment: str, record: bytes, pack_id: bytes) -> None:
        """A fragment says something else of a pack than the pack does."""
        cause = Cause("index fragment", fragment, f"it doesn't describe {pack_name(pack_id)} as it is")
        self._false_records[pack_id, RECORD.unpack(record)[2]] = cause

    def is_indexed(self, pack_id: bytes, chunk: Chunk) -> bool:
        """Whether the index knows all blocks of a chunk in this pack."""
        has_at, ids = self._access.index.has_at, chunk.ids
        return all(has_at(ids[at : at + ID_BYTES], pack_id, chunk.offset) for at in range(0, len(ids), ID_BYTES))

    def index_orphans(self, folder: Path) -> None:
        """Index the packs that no fragment describes, to know whom a lost fragment has hurt."""
        batch: list[RunSource] = []
        records = 0
        candidates, self.orphans = self.orphans, []
        for pack_id, table in self._tables(candidates):
            if all(self.is_indexed(pack_id, chunk) for chunk in table):
                continue  # its fragment was published meanwhile
            self.orphans.append(pack_id)
            pack = FragmentPack(pack_id, 0, "", table.data_keys)
            batch.append(fragment_source(pack_id, [pack], b"".join(sorted(records_of(table, 0)))))
            records += sum(1 for _ in table)
            if records > _ORPHAN_RECORDS:
                self._orphan_runs.append(_run(folder / f"orphans-{len(self._orphan_runs)}.run", batch))
                batch, records = [], 0
        if batch:
            self._orphan_runs.append(_run(folder / f"orphans-{len(self._orphan_runs)}.run", batch))

    def causes(self, content_id: bytes, kind: int) -> tuple[Cause, ...]:
        """Why a block, segment or map can't be had; nothing when there is a whole copy."""
        if self._all_is_well and self._access.index.has(content_id, kind):
            return ()
        copies = [copy for copy in self._access.index.find(content_id) if copy.kind == kind]
        found: list[Cause] = []
        for copy in copies:
            cause = self._wrong_with(copy)
            if cause is None:
                return ()
            found.append(cause)
        if found:
            return tuple(dict.fromkeys(found))
        if any(run.pack_numbers(content_id) for run in self._orphan_runs):
            return tuple(self.fragment_damage()) or (_NO_FRAGMENT,)
        return (_lost(content_id, kind),)

    def certain(self) -> Iterator[Cause]:
        """What is damaged, whether anybody needs it or not."""
        yield from self._bad_packs.values()
        yield from self._bad_chunks.values()
        yield from self.fragment_damage()
        yield from self._false_records.values()

    def fragment_damage(self) -> list[Cause]:
        """The fragments that can't be read."""
        damaged = sorted(self._access.index.damaged.items())
        return [Cause("index fragment", name, error.why) for name, error in damaged]

    @property
    def _all_is_well(self) -> bool:
        return not (self._missing_packs or self._bad_chunks or self._bad_packs or self._false_records)

    def _wrong_with(self, copy: Location) -> Cause | None:
        key = copy.pack.pack_id, copy.offset
        return (
            self._missing_packs.get(copy.pack.pack_id)
            or self._bad_chunks.get(key)
            or self._bad_packs.get(copy.pack.pack_id)
            or self._false_records.get(key)
        )

    def _tables(self, pack_ids: Iterable[bytes]) -> Iterator[tuple[bytes, PackTable]]:
        for pack_id in pack_ids:
            try:
                footer = read_footer(self._access.store, pack_id)
                table, _ = read_table(self._access.store, self._access.sealer, pack_id, footer)
            except (ObjectNotFoundError, PackLayoutError, DamageError):
                continue
            yield pack_id, table


def compare_fragments(access: Access, soundness: Soundness) -> None:
    """Compare what fragments say of packs with what the packs' own tables say."""
    for name, fragment in whole_fragments(access.sealer, access.store, fragments_in(access.store)):
        for number, (pack, said) in enumerate(zip(fragment.packs, _records_by_pack(fragment), strict=True)):
            try:
                footer = read_footer(access.store, pack.pack_id)
                table, _ = read_table(access.store, access.sealer, pack.pack_id, footer)
            except ObjectNotFoundError:
                soundness.note_missing_pack(pack.pack_id)
                continue
            except (PackLayoutError, DamageError):
                continue
            for record in said.difference(records_of(table, number)):
                soundness.note_false_record(name, record, pack.pack_id)


def _lost(content_id: bytes, kind: int) -> Cause:
    kinds: tuple[FindingKind, ...] = ("block", "segment", "map")
    return Cause(kinds[kind], content_id.hex(), "no pack that is known has it")


def _records_by_pack(fragment: Fragment) -> list[set[bytes]]:
    every = fragment.records
    sets: list[set[bytes]] = [set() for _ in fragment.packs]
    for at in range(0, len(every), RECORD.size):
        record = every[at : at + RECORD.size]
        sets[PLACE.unpack_from(record, ID_BYTES)[0]].add(record)
    return sets


def _run(path: Path, sources: list[RunSource]) -> IndexRun:
    write_run(path, sources)
    return IndexRun(path)
