"""Which earlier point of a disk a backup is compared with, and whether its changed areas can be trusted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.specification import DiskBackup, Extent
from proxy_worker.mover.plan import ID_BYTES, ZERO_ID, BlockRange, Geometry, ParentSegments, block_ranges
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.writer import DiskWriter, ParentDisk
from proxy_worker.transport.source import DiskSource

SAMPLE_SHARE: Final = 0.04
"""Of the blocks that changed areas name, as many more are read to see whether the unnamed ones are unchanged."""
LARGEST_SAMPLE: Final = 32


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a disk is compared with."""

    run: str | None = None
    """The parent point's run."""
    parent: ParentSegments | None = None
    changed: Sequence[BlockRange] | None = None
    """The only blocks that may differ from the parent; None when digests must tell."""
    full_read_reason: str | None = None
    """Why changed areas that were given, or a parent that was named, are not used."""
    sampled_bytes: int = 0
    """Read to see whether the areas can be trusted."""


def choose_comparison(
    repository: Repository, writer: DiskWriter, source: DiskSource, request: DiskBackup, geometry: Geometry
) -> Comparison:
    """Find the parent and decide between changed areas and digests.

    Any doubt about the areas means digests, with the reason.
    """
    point, missing = _parent_point(repository, request)
    disk = writer.parent(point, request.disk.key) if point else None
    if disk is None:
        expected = request.changed_areas is not None or request.parent is not None
        return Comparison(full_read_reason=missing if expected else None)
    parent = ParentSegments(disk.segments, writer.segment_ids)
    if request.changed_areas is None:
        return Comparison(disk.run, parent)
    ranges = block_ranges(request.changed_areas, geometry.block_size)
    doubt = _doubt(disk, request.changed_areas, geometry)
    if doubt is None and point is not None and request.parent is None and (newer := repository.newer_than(point)):
        doubt = f"{newer}, and the changed areas may be relative to it"
    sampled_bytes = 0
    if doubt is None:
        sample = _sample(ranges, geometry)
        sampled_bytes = sum(geometry.span(block, 1) for block in sample)
        doubt = _sampled_doubt(source, writer, parent, sample, geometry)
    if doubt is not None:
        return Comparison(disk.run, parent, full_read_reason=doubt, sampled_bytes=sampled_bytes)
    return Comparison(disk.run, parent, ranges, sampled_bytes=sampled_bytes)


def _parent_point(repository: Repository, request: DiskBackup) -> tuple[Point | None, str]:
    """The named point, or else the newest that has the disk; and why there is none."""
    vm_id, key = request.vm.vm_id, request.disk.key
    if request.parent is not None:
        try:
            return repository.point(vm_id, request.parent), f"restore point {request.parent} has no disk {key}"
        except PointNotFoundError:
            return None, f"restore point {request.parent} is not in the repository"
    points = repository.points(vm_id)
    if not points:
        return None, "the repository has no restore point of this VM"
    for point in reversed(points):
        if any(disk.key == key for disk in point.disks):
            return point, f"restore point {point.run} is gone"
    return None, f"no restore point of this VM has disk {key}"


def _doubt(disk: ParentDisk, areas: Sequence[Extent], geometry: Geometry) -> str | None:
    """Why the areas can't be used with this parent, if they can't."""
    if disk.size_bytes != geometry.size_bytes:
        return (
            f"the disk is {geometry.size_bytes} bytes now and was {disk.size_bytes} in restore point {disk.run}, "
            "so changed areas don't apply"
        )
    beyond = next((area for area in areas if area.offset + area.length > geometry.size_bytes), None)
    if beyond is not None:
        return f"the changed area at {beyond.offset}, {beyond.length} bytes long, reaches beyond the disk's end"
    return None


def _sample(ranges: Sequence[BlockRange], geometry: Geometry) -> list[int]:
    """Some blocks that are in none of the ranges, ascending."""
    touched = sum(end - first for first, end in ranges)
    blocks = -(-geometry.size_bytes // geometry.block_size)
    size = min(LARGEST_SAMPLE, int(touched * SAMPLE_SHARE))
    if size == 0 or touched == blocks:
        return []
    untouched = _Complement(ranges, blocks)
    return sorted({untouched.pick() for _ in range(size)})


def _sampled_doubt(
    source: DiskSource, writer: DiskWriter, parent: ParentSegments, sample: Sequence[int], geometry: Geometry
) -> str | None:
    """Read blocks that the areas call unchanged; the reason not to trust the areas, if one has changed."""
    buffer = bytearray(geometry.block_size)
    loaded: tuple[int, bytes | None] = (-1, None)
    for block in sample:
        index, place = divmod(block, geometry.blocks_per_segment)
        if loaded[0] != index:
            loaded = (index, parent.ids(index))
        ids = loaded[1] or b""
        expected = ids[place * ID_BYTES : (place + 1) * ID_BYTES] or ZERO_ID
        view = memoryview(buffer)[: geometry.span(block, 1)]
        source.read_into(block * geometry.block_size, view)
        found = writer.identify(view) if bytes(view).rstrip(b"\0") else ZERO_ID
        if found != expected:
            at = block * geometry.block_size
            return f"the block at {at} has changed although no changed area names it, so the areas can't be trusted"
    return None


class _Complement:
    """The blocks of a disk that are in none of its changed ranges, for drawing from."""

    def __init__(self, ranges: Sequence[BlockRange], blocks: int) -> None:
        edges = [0, *(edge for pair in ranges for edge in pair), blocks]
        self._gaps = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2) if edges[i] < edges[i + 1]]
        self._weights = [end - first for first, end in self._gaps]

    def pick(self) -> int:
        """A block, each as likely as any other."""
        ((first, end),) = random.choices(self._gaps, self._weights)  # noqa: S311 - a sample, not a secret
        return random.randrange(first, end)  # noqa: S311
