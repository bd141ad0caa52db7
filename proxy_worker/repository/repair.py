"""Repair: what a damaged pack still holds goes into new packs, and what it lost is fetched from elsewhere.

1. What of it is whole, and nowhere else, is moved as it is.
2. What is lost and needed is looked for in linked repositories: in restore points of the same VM, at the same
   place of the same disk. Their ids are of another key and say nothing here; a block counts if its content has the
   id that is needed, so a wrong one can't get in. A lost segment is made again from the blocks at its place.
3. What isn't found there stays recorded as lost: the next backup of the VM reads and stores it, if it still has it.

Everything new is durable and described by fragments before anything else happens, and nothing is deleted: the
damaged pack goes with a later collection, once it holds nothing that is needed and has no other copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from proxy_worker.contract.errors import DamageError, NotFoundError
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.damage import Damage, forget_damage, load_damage, record_damage
from proxy_worker.repository.examination import ExaminedPack, examine_packs
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.losses import Losses, Place, find_losses
from proxy_worker.repository.mending import MendedStore
from proxy_worker.repository.new_packs import NewPacks
from proxy_worker.repository.pack_layout import Chunk, ChunkKind, pack_name
from proxy_worker.repository.points import Point
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError

_PACK_BYTES: Final = 64 * 1024 * 1024


@dataclass
class RepairReport:
    """What was done, and what is left."""

    moved_chunks: int = 0
    fetched: int = 0
    """Blocks and segments that came from linked repositories."""
    mended: list[str] = field(default_factory=list)
    """Damaged packs that nothing is lost with any more; they go with a collection."""
    rebuilt: tuple[str, ...] = ()
    """Damaged index fragments that were made anew from what packs say of themselves."""
    left: list[str] = field(default_factory=list)
    """Packs that couldn't be emptied, and why."""
    losses: Losses = field(default_factory=Losses)
    """Who needs what is still lost."""


def repair(
    repository: Repository, *, linked: Sequence[Repository] = (), go_on: Callable[[], None] = lambda: None
) -> RepairReport:
    """Mend what can be, of the packs that are recorded as damaged; done again, it goes on. Raises `StoreError`."""
    return _Repair(repository, linked, go_on).run()


class _Repair:
    def __init__(self, repository: Repository, linked: Sequence[Repository], go_on: Callable[[], None]) -> None:
        self._repository = repository
        self._access = repository.access
        self._chunks = ChunkReader(repository.access)
        # What parity mends is read as if it had never been damaged.
        self._mended = replace(self._access, store=MendedStore(self._access.store)) if self._access.parity else None
        self._linked = linked
        self._go_on = go_on
        self._report = RepairReport()
        self._blind = False

    def run(self) -> RepairReport:
        access, report = self._access, self._report
        damage = load_damage(access.store, access.sealer)
        if not damage:
            return report
        access.index.refresh()
        made = NewPacks(access, unlocked=self._repository.unlocked, pack_bytes=_PACK_BYTES, new_blocks=True)
        emptied, unseen = set(damage.packs), set(damage.packs)
        try:
            reading = self._mended or access
            for pack in examine_packs(reading, ChunkReader(reading), damage.packs):
                self._go_on()
                unseen.discard(pack.pack_id)
                if self._is_right(pack):
                    forget_damage(access, pack.pack_id)  # somebody has put it right
                    emptied.discard(pack.pack_id)
                elif not self._empty(pack, damage, made):
                    emptied.discard(pack.pack_id)
            made.publish_all()
            access.index.refresh()
            damage = self._with_unknown(damage, unseen)
            report.losses = self._losses(damage)
            # What a lost segment names is known, and so can be lost, only once the segment is there again.
            while self._fetch(report.losses, made):
                made.publish_all()
                access.index.refresh()
                report.losses = self._losses(damage)
        finally:
            made.discard()
        self._settle(damage, emptied)
        return report

    def _is_right(self, pack: ExaminedPack) -> bool:
        """Whether nothing is wrong with a pack, whatever its parity makes of it."""
        if self._mended is None or pack.problem is not None:
            return pack.problem is None
        return any(one.problem is None for one in examine_packs(self._access, self._chunks, [pack.pack_id]))

    def _empty(self, pack: ExaminedPack, damage: Damage, made: NewPacks) -> bool:
        """Move what is whole out of a pack, unless another holds it too."""
        chunks = [chunk for chunk in pack.whole if not self._is_elsewhere(chunk, damage)]
        if chunks and not made.speaks_for(pack.group):
            self._report.left.append(
                f"{pack_name(pack.pack_id)}: it is of trust group {pack.group}; use the passphrase"
            )
            return False
        for chunk in chunks:
            self._go_on()
            try:
                stored = (self._mended or self._access).store.get(
                    pack_name(pack.pack_id), chunk.offset, chunk.stored_length
                )
            except (ObjectNotFoundError, ObjectUnreadableError):
                return False
            made.put_stored(pack.group, chunk, pack.key_of(chunk), stored)
            self._report.moved_chunks += 1
        return True

    def _is_elsewhere(self, chunk: Chunk, damage: Damage) -> bool:
        ids = [chunk.ids[at : at + ID_BYTES] for at in range(0, len(chunk.ids), ID_BYTES)]
        packs = damage.packs
        find = self._access.index.find
        return all(any(copy.pack.pack_id not in packs for copy in find(content_id)) for content_id in ids)

    def _with_unknown(self, damage: Damage, unseen: set[bytes]) -> Damage:
        """Record what the index doesn't know as lost with the packs that nothing describes any more."""
        self._blind = bool(unseen)
        unknown = self._losses(damage).unknown if unseen else set()
        for pack_id in unseen if unknown else ():
            record_damage(self._access, pack_id, damage.problems[pack_id], unknown)
        return load_damage(self._access.store, self._access.sealer) if unknown else damage

    def _losses(self, damage: Damage) -> Losses:
        lost = damage.lost(self._access.index)
        points = sorted(self._repository.points(), key=lambda point: -point.created_at)
        return find_losses(self._access, self._chunks, points, lost, blind=self._blind, go_on=self._go_on)

    def _fetch(self, losses: Losses, made: NewPacks) -> int:
        """Look for everything that is lost in the linked repositories; how much was there."""
        fetched = 0
        for lost, places in losses.places.items():
            self._go_on()
            fetched += any(
                self._fetch_from(source, lost, place, made) for source in self._linked for place in places
            )
        self._report.fetched += fetched
        return fetched

    def _fetch_from(self, source: Repository, lost: bytes, place: Place, made: NewPacks) -> bool:
        """Try the restore points of the same VM, the newest first."""
        points = [point for point in source.points(place.point.vm_id) if _has_disk(point, place.disk_key)]
        for point in sorted(points, key=lambda point: -point.created_at):
            self._go_on()
            try:
                with source.reader(point) as reader:
                    if place.kind == ChunkKind.BLOCK:
                        found = self._fetch_block(reader, lost, place, made)
                    else:
                        found = self._fetch_segment(reader, lost, place, made)
            except (DamageError, NotFoundError):
                continue
            if found:
                return True
        return False

    def _fetch_block(self, reader: PointReader, lost: bytes, place: Place, made: NewPacks) -> bool:
        content = bytearray(place.length_bytes)
        there = reader.read_range_into(place.disk_key, place.offset_bytes, memoryview(content))
        if not there or self._access.keyring.block_id(content) != lost:
            return False
        made.put_block(lost, content)
        return True

    def _fetch_segment(self, reader: PointReader, lost: bytes, place: Place, made: NewPacks) -> bool:
        keyring, size = self._access.keyring, self._access.block_size
        ids = bytearray()
        for at in range(0, place.length_bytes, size):
            self._go_on()
            block = bytearray(min(size, place.length_bytes - at))
            if not reader.read_range_into(place.disk_key, place.offset_bytes + at, memoryview(block)):
                return False
            ids += ZERO_ID if block.count(0) == len(block) else keyring.block_id(block)
        if keyring.segment_id(ids) != lost:
            return False
        made.put_metadata(ChunkKind.SEGMENT, lost, ids)
        return True

    def _settle(self, damage: Damage, emptied: set[bytes]) -> None:
        """Name the packs that nothing is lost with; forget those that are gone altogether."""
        needed = set(self._report.losses.uses)
        for pack_id in sorted(emptied):
            if any((pack_id, content_id) in damage.bad for content_id in needed):
                continue
            if self._access.store.exists(pack_name(pack_id)):
                self._report.mended.append(pack_name(pack_id))
            else:
                forget_damage(self._access, pack_id)


def _has_disk(point: Point, key: str) -> bool:
    return any(disk.key == key for disk in point.disks)
