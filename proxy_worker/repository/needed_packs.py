"""Which packs hold what a restore point needs: every block, segment and map of its disks looked up in the index.

Disk maps name more packs than that, and none that packs were rewritten to. It takes some 20 s of
processor time for a TiB, and reading its segments: for when a point must not rely on what its upkeep has done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import StoredDisk


def packs_needed(chunks: ChunkReader, disks: Sequence[StoredDisk]) -> set[str]:
    """Names of all packs with a copy of anything that some disks need.

    Raises `MissingBlockError`, `RepositoryDamageError` for a map or segment that can't be read.
    """
    packs: set[str] = set()

    def look_up(ids: Iterable[bytes], kind: ChunkKind) -> None:
        for content_id in ids:
            packs.update(location.pack.name for location in chunks.locate(content_id, kind))

    for disk in disks:
        look_up([disk.map_id], ChunkKind.MAP)
        look_up((block for file in disk.configuration for block in file.block_ids), ChunkKind.BLOCK)
        segments = set(load_map(chunks, disk.map_id).segments) - {ZERO_ID}
        look_up(segments, ChunkKind.SEGMENT)
        for segment_id in segments:
            ids = chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
            look_up({ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)} - {ZERO_ID}, ChunkKind.BLOCK)
    return packs
