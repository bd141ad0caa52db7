"""Where the copy of a restore point lies: under its original's VM and run, so that nothing is copied twice.

A run that was given up, as a collector does with one that never ended, has a tombstone in that place. Its next copy
is called `<run>.2`, then `<run>.3`, …
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import DiskMap, load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, Tombstone, is_ended, load_outcome
from proxy_worker.repository.repository import Repository

_LATER_COPY: Final = re.compile(r"(.+)\.[0-9]+")


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """What the target has in the place of a point's copy."""

    run: str
    """Its run there."""
    there: bool = False
    """Whether it has been copied, and counts."""
    removed: bool = False
    """Whether it has been copied before, and retention has ended it: it isn't brought back."""


def place_of_copy(target: Repository, point: Point) -> CopyPlace:
    """Where `point` is, or will be; raises `RepositoryDamageError` where that can't be read."""
    access = target.access
    for number in count(1):
        run = point.run if number == 1 else f"{point.run}.{number}"
        outcome = load_outcome(access.store, access.sealer, point.vm_id, run)
        if isinstance(outcome, Tombstone):
            continue
        if is_ended(access.store, point.vm_id, run):
            return CopyPlace(run, removed=True)
        return CopyPlace(run, there=outcome is not None)
    raise AssertionError("the numbers have no end")


@dataclass(frozen=True, slots=True)
class Basis:
    """A disk that the target has already, and where the disk to be copied differs from it."""

    run: str
    """The target's restore point."""
    changed: tuple[tuple[int, int], ...]
    """Offset and length of each area, in bytes."""


def find_basis(
    source: Repository, point: Point, disk_key: str, *, originals: Sequence[Point], copies: Sequence[Point]
) -> Basis | None:
    """The copy that is nearest in time, compared by what the source says of both; None if there is none to use.

    `originals` and `copies` are the VM's restore points in source and target. Nothing is read but maps and
    segments: blocks that have the same id in the source are the same in the target.
    """
    known = {original.run: original for original in originals}
    nearest = sorted(copies, key=lambda copy: (copy.sequence > point.sequence, abs(copy.sequence - point.sequence)))
    for copy in nearest:
        original = known.get(copy.run) or known.get(_original_run(copy.run))
        if original is None or original.run == point.run or all(disk.key != disk_key for disk in copy.disks):
            continue
        try:
            changed = _differences(source, original, point, disk_key)
        except DamageError:
            continue
        if changed is not None:
            return Basis(copy.run, changed)
    return None


def _original_run(run: str) -> str:
    match = _LATER_COPY.fullmatch(run)
    return match[1] if match else run


def _differences(
    source: Repository, original: Point, point: Point, disk_key: str
) -> tuple[tuple[int, int], ...] | None:
    before = next((disk for disk in original.disks if disk.key == disk_key), None)
    now = point.disk(disk_key)
    if before is None or before.size_bytes != now.size_bytes:
        return None
    old, new = load_map(source.chunks, before.map_id), load_map(source.chunks, now.map_id)
    changed: list[tuple[int, int]] = []
    for number, (was, is_now) in enumerate(zip(old.segments, new.segments, strict=True)):
        if was == is_now:
            continue
        first = number * new.blocks_per_segment
        pairs = zip(_ids(source, old, number), _ids(source, new, number), strict=True)
        for block, (one, other) in enumerate(pairs, first):
            if one != other:
                _add(changed, block * new.block_size, min(new.block_size, new.size_bytes - block * new.block_size))
    return tuple(changed)


def _add(areas: list[tuple[int, int]], offset: int, length: int) -> None:
    if areas and sum(areas[-1]) == offset:
        areas[-1] = (areas[-1][0], areas[-1][1] + length)
    else:
        areas.append((offset, length))


def _ids(source: Repository, disk_map: DiskMap, number: int) -> list[bytes]:
    blocks = disk_map.block_count(number)
    segment_id = disk_map.segments[number]
    if segment_id == ZERO_ID:
        return [ZERO_ID] * blocks
    ids = source.chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
    if len(ids) != blocks * ID_BYTES:
        raise source.chunks.damage(f"segment/{segment_id.hex()}", "it has another length than its disk's map says")
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
