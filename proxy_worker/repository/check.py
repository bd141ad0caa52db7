"""Checking: every byte is read, opened and compared with its name, and what is damaged is traced to who needs it.

Packs are read once, in several threads. Then the tree of every restore point is walked, map, segments and ids, and
each id is looked up among what has turned out to be whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy_worker.contract.errors import DamageError
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.config import Config
from proxy_worker.repository.findings import CheckReport, Finding
from proxy_worker.repository.index_run import Location, PackEntry
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.needs import NeedsWalk
from proxy_worker.repository.pack_layout import MAX_BLOCKS_IN_CHUNK, Chunk, ChunkKind, Footer, pack_name
from proxy_worker.repository.pack_scan import ChunkTest, PackResult, scan_packs
from proxy_worker.repository.packs import read_table
from proxy_worker.repository.parity_upkeep import scan_parity
from proxy_worker.repository.points import live_point_names
from proxy_worker.repository.registration import listed_packs, open_lists
from proxy_worker.repository.scrub import document_findings, leftover_notes
from proxy_worker.repository.soundness import Soundness, compare_fragments
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.locks import locks_of


def check(access: Access, *, after_pack: Callable[[], None] = lambda: None) -> CheckReport:
    """Check a repository whole; with a write key, blocks are only compared with their checksums.

    What `after_pack` raises ends it.
    Changes nothing, and may run beside writers, readers and collectors. Raises `StoreError`.
    """
    started = time.monotonic()
    with access.freshly_indexed() as fresh, ScratchFolder("check") as folder:
        return _Check(fresh, after_pack).run(started, folder)


class _Check:
    def __init__(self, access: Access, after_pack: Callable[[], None]) -> None:
        self._access = access
        self._after_pack = after_pack
        self._chunks = ChunkReader(access)
        self._soundness = Soundness(access)

    def run(self, started: float, folder: Path) -> CheckReport:
        access, soundness = self._access, self._soundness
        documents = [*document_findings(access.store), *_hidden(access.store), *_unreadable_lists(access)]
        # Packs are listed after the index: each one that a fragment names was there before the fragment was.
        scan_packs(access.store, self._prepare, self._note)
        # Points are listed before the index is read again: whatever they need was published before them. What has
        # been published since the packs were scanned isn't read, and passes.
        points = list(live_point_names(access.store))
        access.index.refresh()
        compare_fragments(access, soundness)
        soundness.index_orphans(folder)
        walk = NeedsWalk(access, self._chunks, soundness)
        walk.run(points)
        parity = scan_parity(access.store, access.config, self._after_pack)
        return CheckReport(
            points=walk.points,
            packs=soundness.pack_count,
            read_bytes=soundness.read_bytes + parity.read_bytes,
            duration_seconds=time.monotonic() - started,
            findings=(*documents, *walk.findings(), *parity.findings),
            notes=(*leftover_notes(access.store), *self._notes(access.config), *parity.notes),
        )

    def _note(self, pack: PackResult) -> None:
        self._soundness.note_pack(pack)
        self._after_pack()

    def _notes(self, config: Config) -> list[str]:
        notes = []
        if self._soundness.orphans:
            notes.append(
                f"{len(self._soundness.orphans)} packs without an index fragment, as interrupted writes leave them"
            )
        if not self._access.keyring.can_read and config.cipher != "none":
            notes.append("blocks were compared with their checksums only: a write key can't open them")
        return notes

    def _prepare(self, pack_id: bytes, footer: Footer) -> ChunkTest:
        """Read the table, see whether the index knows the pack, and return the test for each chunk."""
        access = self._access
        table, _ = read_table(access.store, access.sealer, pack_id, footer)
        chunks = list(table)
        if not all(self._soundness.is_indexed(pack_id, chunk) for chunk in chunks):
            self._soundness.orphans.append(pack_id)
        pack = PackEntry(pack_id, pack_name(pack_id), b"", footer.size_bytes, table.data_keys)
        opens = access.keyring.can_read or not access.encrypted

        def test(number: int, stored: memoryview) -> str | None:
            chunk = chunks[number]
            try:
                if chunk.kind != ChunkKind.BLOCK:
                    self._chunks.open_metadata(_location(pack, chunk), chunk.ids, stored)
                elif opens and not self._holds_its_blocks(pack, chunk, stored):
                    return "holds other blocks than the table says"
            except DamageError:
                return "can't be opened"
            return None

        return test

    def _holds_its_blocks(self, pack: PackEntry, chunk: Chunk, stored: memoryview) -> bool:
        if chunk.plain_length > MAX_BLOCKS_IN_CHUNK * self._access.block_size:
            return False
        opened = memoryview(self._chunks.open_chunk(_location(pack, chunk), chunk.ids, stored))
        size, identify = self._access.block_size, self._access.keyring.block_id
        if len(chunk.ids) == ID_BYTES:
            return identify(opened) == chunk.ids
        return all(
            identify(opened[place * size : (place + 1) * size])
            == chunk.ids[place * ID_BYTES : (place + 1) * ID_BYTES]
            for place in range(len(chunk.ids) // ID_BYTES)
        )


def _hidden(store: Store) -> Iterator[Finding]:
    """What was deleted or overwritten though it is locked."""
    if locks_of(store) is None:
        return
    from proxy_worker.repository.undeleting import hidden_findings, require_versions  # noqa: PLC0415 - rarely wanted

    yield from hidden_findings(require_versions(store, store.location))


def _unreadable_lists(access: Access) -> Iterator[Finding]:
    """Lists of condemned packs that keep everybody from writing."""
    for name in open_lists(access.store):
        try:
            listed_packs(access.store, access.sealer, name)
        except DamageError as error:
            yield Finding("object", name, error.why, ())


def _location(pack: PackEntry, chunk: Chunk) -> Location:
    return Location._make((pack, *chunk[:7], 0, len(chunk.ids) // ID_BYTES))
