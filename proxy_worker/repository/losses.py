"""Who needs what is lost: a walk over every restore point, that looks for a few ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.findings import Use
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import DiskMap, load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, StoredDisk


class Place(NamedTuple):
    """Where a lost block or segment belongs on a disk of a restore point."""

    point: Point
    disk_key: str
    kind: ChunkKind
    offset_bytes: int
    length_bytes: int


class Losses:
    """What a walk found, by lost id."""

    def __init__(self) -> None:
        self.places: dict[bytes, list[Place]] = defaultdict(list)
        """One for each VM, disk and place, of its newest point; none for maps and files of a VM's configuration."""
        self.uses: dict[bytes, set[Use]] = defaultdict(set)
        self.points: set[tuple[str, str]] = set()
        """VM id and run of the points that need something lost."""
        self.unknown: set[bytes] = set()
        """Lost ids that the index doesn't know."""


def find_losses(
    access: Access,
    chunks: ChunkReader,
    points: Iterable[Point],
    lost: frozenset[bytes],
    *,
    blind: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> Losses:
    """Walk `points`, given newest first. What `go_on` raises, once for each disk, ends it.

    `blind`: there are packs of which nobody knows what they held, so what the index doesn't know is lost, too.
    """
    walk = _Walk(access, chunks, lost, blind=blind)
    if lost or blind:
        for point in points:
            for disk in point.disks:
                go_on()
                walk.visit(point, disk)
    return walk.losses


class _Walk:
    def __init__(self, access: Access, chunks: ChunkReader, lost: frozenset[bytes], *, blind: bool) -> None:
        self.losses = Losses()
        self._has = access.index.has
        self._chunks = chunks
        self._lost = lost
        self._blind = blind
        self._seen: dict[bytes, list[tuple[int, bytes]]] = {}
        """For segments that hold something lost, where and what."""
        self._clean: set[bytes] = set()
        self._known: set[tuple[bytes, str, str, int]] = set()

    def visit(self, point: Point, disk: StoredDisk) -> None:
        for file in disk.configuration:
            for block_id in file.block_ids:
                if self._is_lost(block_id, ChunkKind.BLOCK):
                    self._note(point, disk.key, block_id, None)
        try:
            disk_map = load_map(self._chunks, disk.map_id)
        except DamageError:
            self._is_lost(disk.map_id, ChunkKind.MAP)
            self._note(point, disk.key, disk.map_id, None)
            return
        span = disk_map.blocks_per_segment * disk_map.block_size
        for number, segment_id in enumerate(disk_map.segments):
            if segment_id == ZERO_ID:
                continue
            try:
                self._visit_segment(point, disk.key, disk_map, number, segment_id)
            except DamageError:
                self._is_lost(segment_id, ChunkKind.SEGMENT)
                place = ChunkKind.SEGMENT, number * span, min(span, disk_map.size_bytes - number * span)
                self._note(point, disk.key, segment_id, place)

    def _visit_segment(self, point: Point, key: str, disk_map: DiskMap, number: int, segment_id: bytes) -> None:
        if segment_id in self._clean:
            return
        if segment_id not in self._seen:
            hits = self._hits(segment_id)
            if not hits:
                self._clean.add(segment_id)
                return
            self._seen[segment_id] = hits
        for block, block_id in self._seen[segment_id]:
            offset = (number * disk_map.blocks_per_segment + block) * disk_map.block_size
            length = min(disk_map.block_size, disk_map.size_bytes - offset)
            self._note(point, key, block_id, (ChunkKind.BLOCK, offset, length))

    def _hits(self, segment_id: bytes) -> list[tuple[int, bytes]]:
        ids = self._chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
        blocks = (ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES))
        return [
            (number, block_id)
            for number, block_id in enumerate(blocks)
            if block_id != ZERO_ID and self._is_lost(block_id, ChunkKind.BLOCK)
        ]

    def _is_lost(self, content_id: bytes, kind: ChunkKind) -> bool:
        if content_id in self._lost:
            return True
        if not self._blind or self._has(content_id, kind):
            return False
        self.losses.unknown.add(content_id)
        return True

    def _note(self, point: Point, key: str, lost: bytes, place: tuple[ChunkKind, int, int] | None) -> None:
        self.losses.points.add((point.vm_id, point.run))
        self.losses.uses[lost].add(Use(point.vm_name, point.run, key))
        if place is not None and (lost, point.vm_id, key, place[1]) not in self._known:
            self._known.add((lost, point.vm_id, key, place[1]))
            self.losses.places[lost].append(Place(point, key, *place))
