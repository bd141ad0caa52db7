"""Walking every restore point down to its blocks, to trace damage to the disks that need what is lost."""

from __future__ import annotations

from collections.abc import Iterable

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.findings import Finding, Use
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, StoredDisk, is_ended, read_outcome
from proxy_worker.repository.soundness import Cause, Soundness
from proxy_worker.repository.store import ObjectNotFoundError


class NeedsWalk:
    """One walk; remembers segments it has seen, so that points that share them cost little."""

    def __init__(self, access: Access, chunks: ChunkReader, soundness: Soundness) -> None:
        self.points = 0
        self._access = access
        self._chunks = chunks
        self._soundness = soundness
        self._whole_segments: set[bytes] = set()
        self._hurt_segments: dict[bytes, frozenset[Cause]] = {}
        self._uses: dict[Cause, set[Use]] = {}

    def run(self, points: Iterable[str]) -> None:
        """Visit points by their names."""
        hurt_points: list[tuple[str, DamageError]] = []
        names: dict[str, str] = {}
        for name in points:
            try:
                outcome = read_outcome(self._access.store, self._access.sealer, name)
            except ObjectNotFoundError:
                continue
            except DamageError as error:
                hurt_points.append((name, error))
                continue
            if isinstance(outcome, Point):
                names[outcome.vm_id] = outcome.vm_name
                self._visit(outcome)
        for name, damage in hurt_points:
            _, vm_id, run = name.split("/")
            self._blame([Cause("point", name, damage.why)], Use(names.get(vm_id, vm_id), run, ""))

    def findings(self) -> tuple[Finding, ...]:
        """All damage, with what it hurts."""
        for cause in self._soundness.certain():
            self._uses.setdefault(cause, set())
        return tuple(
            Finding(cause.kind, cause.name, cause.problem, tuple(sorted(uses)))
            for cause, uses in sorted(self._uses.items())
        )

    def _visit(self, point: Point) -> None:
        self.points += 1
        for disk in point.disks:
            use = Use(point.vm_name, point.run, disk.key)
            causes = self._disk_causes(disk, use)
            if causes and is_ended(self._access.store, point.vm_id, point.run):
                return  # while this was looking at it: a collector may delete what it needed
            self._blame(causes, use)

    def _blame(self, causes: list[Cause], use: Use) -> None:
        for cause in causes:
            self._uses.setdefault(cause, set()).add(use)

    def _disk_causes(self, disk: StoredDisk, use: Use) -> list[Cause]:
        causes: set[Cause] = set()
        for file in disk.configuration:
            for block_id in file.block_ids:
                causes.update(self._content_causes(block_id, ChunkKind.BLOCK))
        map_causes = self._content_causes(disk.map_id, ChunkKind.MAP)
        if map_causes:
            return [*causes, *map_causes]
        try:
            disk_map = load_map(self._chunks, disk.map_id)
        except DamageError as error:
            return [*causes, Cause("map", f"of {use.vm} {use.run} {use.disk_key}", str(error))]
        for segment_id in disk_map.segments:
            causes |= self._segment_causes(segment_id)
        return list(causes)

    def _segment_causes(self, segment_id: bytes) -> frozenset[Cause]:
        if segment_id == ZERO_ID or segment_id in self._whole_segments:
            return frozenset()
        if segment_id not in self._hurt_segments:
            causes = self._fresh_segment_causes(segment_id)
            if not causes:
                self._whole_segments.add(segment_id)
                return causes
            self._hurt_segments[segment_id] = causes
        return self._hurt_segments[segment_id]

    def _fresh_segment_causes(self, segment_id: bytes) -> frozenset[Cause]:
        if causes := self._content_causes(segment_id, ChunkKind.SEGMENT):
            return frozenset(causes)
        try:
            ids = self._chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
        except DamageError as error:
            return frozenset({Cause("segment", segment_id.hex(), str(error))})
        found: set[Cause] = set()
        for at in range(0, len(ids), ID_BYTES):
            block_id = ids[at : at + ID_BYTES]
            if block_id != ZERO_ID:
                found.update(self._content_causes(block_id, ChunkKind.BLOCK))
        return frozenset(found)

    def _content_causes(self, content_id: bytes, kind: ChunkKind) -> tuple[Cause, ...]:
        return self._soundness.causes(content_id, kind)
