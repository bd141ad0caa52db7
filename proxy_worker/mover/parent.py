"""Which earlier point of a disk a backup is compared with, and whether its changed areas can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.subjects import Extent
from proxy_worker.mover.control import Control
from proxy_worker.mover.plan import ZERO_ID, BlockRange, Geometry, ParentSegments, block_ranges
from proxy_worker.mover.sampling import BlockComparison, check_sample
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.writer import DiskWriter, ParentDisk
from proxy_worker.transport.source import DiskSource


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a disk is compared with."""

    run: str | None = None
    """The parent point's run."""
    parent: ParentSegments | None = None
    changed: Sequence[BlockRange] | None = None
    """The only blocks that may differ from the parent; None when digests must tell."""
    in_use: Sequence[BlockRange] | None = None
    """The only blocks that may be other than zeros; None when only the source can tell."""
    full_read_reason: str | None = None
    """Why changed areas that were given, or a parent that was named, are not used."""
    sampled_bytes: int = 0
    """Read to see whether the areas can be trusted."""
    alarm: str | None = None
    """The areas missed a change: whoever tells them has to be looked into."""


def choose_comparison(
    repository: Repository,
    writer: DiskWriter,
    source: DiskSource,
    request: DiskBackup,
    geometry: Geometry,
    *,
    control: Control,
) -> Comparison:
    """Find the parent and decide between changed areas and digests.

    Any doubt about the areas means digests, with the reason; any doubt about areas in use, all that is allocated.
    """
    comparison = _compare(repository, writer, source, request, geometry, control=control)
    if comparison.changed is not None or request.areas_in_use is None:
        return comparison
    ranges = block_ranges(request.areas_in_use, geometry.block_size)
    doubt = _beyond(request.areas_in_use, geometry)
    if doubt is not None:
        return replace(comparison, full_read_reason=_joined(comparison.full_read_reason, doubt))
    zeros = ParentSegments((ZERO_ID,) * geometry.segments, writer.segment_ids)
    sample = check_sample(BlockComparison(source, writer, zeros, geometry), ranges, geometry, control, tracked=True)
    read_bytes = comparison.sampled_bytes + sample.read_bytes
    if sample.changed_at is None:
        return replace(comparison, in_use=ranges, sampled_bytes=read_bytes)
    alarm = f"the block at {sample.changed_at} isn't zeros although no area in use names it"
    reason = _joined(comparison.full_read_reason, f"{alarm}, so the areas can't be trusted")
    return replace(comparison, full_read_reason=reason, sampled_bytes=read_bytes, alarm=alarm)


def _compare(
    repository: Repository,
    writer: DiskWriter,
    source: DiskSource,
    request: DiskBackup,
    geometry: Geometry,
    *,
    control: Control,
) -> Comparison:
    point, missing = _parent_point(repository, request)
    disk = writer.parent(point, request.disk.key) if point else None
    if disk is None:
        expected = request.changed_areas is not None or request.parent is not None
        return Comparison(full_read_reason=missing if expected else request.full_read_reason)
    parent = ParentSegments(disk.segments, writer.segment_ids)
    if request.changed_areas is None:
        return Comparison(disk.run, parent, full_read_reason=request.full_read_reason)
    ranges = block_ranges(request.changed_areas, geometry.block_size)
    doubt = _doubt(disk, request.changed_areas, geometry)
    if doubt is None and writer.misses(disk.segments):
        doubt = "blocks that the disk may still have are damaged in the repository, and are stored anew"
    if doubt is None and point is not None and request.parent is None and (newer := repository.newer_than(point)):
        doubt = f"{newer}, and the changed areas may be relative to it"
    if doubt is not None:
        return Comparison(disk.run, parent, full_read_reason=doubt)
    compare = BlockComparison(source, writer, parent, geometry)
    sample = check_sample(compare, ranges, geometry, control, tracked=request.disk.address.vsphere is not None)
    if sample.changed_at is None:
        return Comparison(disk.run, parent, ranges, sampled_bytes=sample.read_bytes)
    alarm = f"the block at {sample.changed_at} has changed although no changed area names it"
    doubt = f"{alarm}, so the areas can't be trusted"
    return Comparison(disk.run, parent, full_read_reason=doubt, sampled_bytes=sample.read_bytes, alarm=alarm)


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
    return _beyond(areas, geometry)


def _beyond(areas: Sequence[Extent], geometry: Geometry) -> str | None:
    beyond = next((area for area in areas if area.offset + area.length > geometry.size_bytes), None)
    if beyond is not None:
        return f"the area at {beyond.offset}, {beyond.length} bytes long, reaches beyond the disk's end"
    return None


def _joined(*reasons: str | None) -> str:
    return "; ".join(reason for reason in reasons if reason)
