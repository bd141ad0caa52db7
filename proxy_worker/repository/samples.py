"""Sample restores: blocks of restore points, chosen at random and read as a restore reads them.

The reader compares the map with its id, each segment with the map, each block with its segment: the hash tree from
the restore point down.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import DamageError, NotFoundError
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, StoredDisk
from proxy_worker.repository.proofs import NEVER, Proofs
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.repository import Repository

_SEGMENTS: Final = 2
_BLOCKS: Final = 16
"""So many of a disk are restored: blocks of each of the segments."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What restoring a sample of a point came to."""

    name: str
    """`<vm>/<run>`."""
    problem: str | None
    suspects: frozenset[bytes] = frozenset()
    """The packs that what couldn't be restored lies in."""


def restore_samples(
    repository: Repository, proofs: Proofs, count: int, *, go_on: Callable[[], None] = lambda: None
) -> Iterator[Sample]:
    """Restore samples of so many points, those whose last was longest ago first. Raises `StoreError`.

    A key pair that this key doesn't hold ends it without a word: that is no damage.
    """
    points = sorted(
        repository.points(), key=lambda point: (proofs.samples.get(_name(point), NEVER), -point.created_at)
    )
    for point in points[:count]:
        go_on()
        try:
            yield _sample(repository, point)
        except (CannotReadError, NotFoundError):
            continue


def _sample(repository: Repository, point: Point) -> Sample:
    chosen = random.SystemRandom()
    wanted: tuple[bytes, ChunkKind] = (b"", ChunkKind.MAP)
    try:
        with repository.reader(point) as reader:
            for disk in point.disks:
                wanted = disk.map_id, ChunkKind.MAP
                segments = [one for one in reader.map(disk.key).segments if one != ZERO_ID]
                for segment_id in chosen.sample(segments, min(_SEGMENTS, len(segments))):
                    wanted = segment_id, ChunkKind.SEGMENT
                    ids = reader.segment_ids(segment_id)
                    blocks = {ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)} - {ZERO_ID}
                    for block_id in chosen.sample(sorted(blocks), min(_BLOCKS, len(blocks))):
                        wanted = block_id, ChunkKind.BLOCK
                        reader.read_block(block_id)
                _files(reader, disk)
    except DamageError as error:
        suspects = {copy.pack.pack_id for copy in repository.chunks.locate(*wanted)}
        return Sample(_name(point), str(error), frozenset(suspects))
    return Sample(_name(point), None)


def _files(reader: PointReader, disk: StoredDisk) -> None:
    for file in disk.configuration:
        reader.read_file(file)


def _name(point: Point) -> str:
    return f"{point.vm_id}/{point.run}"
