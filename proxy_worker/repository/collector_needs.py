"""What restore points need: walked from points to maps to segments to blocks, each read once, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.collector_ids import IdSet, without_zeros
from proxy_worker.repository.collector_known import KnownNames
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point


class Needs:
    """Ids of the blocks, segments and maps that some points need."""

    def __init__(self, folder: Path, parts: int) -> None:
        folder.mkdir()
        self.parts = parts
        kinds = (ChunkKind.BLOCK, ChunkKind.SEGMENT, ChunkKind.MAP)
        self._sets = tuple(IdSet(folder / kind.name.lower(), parts) for kind in kinds)
        self.points = 0

    def part(self, number: int) -> tuple[set[bytes], ...]:
        """One part of the ids, by `ChunkKind`."""
        return tuple(ids.part(number) for ids in self._sets)

    def gather(
        self,
        access: Access,
        points: Iterable[Point],
        *,
        beyond: Needs | None = None,
        forgiving: bool = False,
        remembering: bool = False,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Add what `points` need and `beyond` doesn't hold.

        Raises `DamageError` when a map or segment can't be read; a `forgiving` walk leaves out what is below it.
        One that is `remembering` doesn't read again what the last such walk did. `go_on` is called now and then,
        and ends the walk by raising.
        """
        blocks, segments, maps = self._sets
        chunks = ChunkReader(access)
        for point in points:
            self.points += 1
            go_on()
            for disk in point.disks:
                maps.add(disk.map_id)
                for file in disk.configuration:
                    blocks.add(b"".join(file.block_ids))
        for kind, below, read in ((ChunkKind.MAP, segments, _segments_of), (ChunkKind.SEGMENT, blocks, _blocks_of)):
            with KnownNames(access.cache_folder if remembering else None, kind, access.keyring) as known:
                for content_id in self._fresh(kind, beyond, go_on):
                    try:
                        below.add(known.named_by(content_id, partial(read, chunks)))
                    except DamageError:
                        if not forgiving:
                            raise

    def _fresh(self, kind: ChunkKind, beyond: Needs | None, go_on: Callable[[], None]) -> Iterable[bytes]:
        for part in range(self.parts):
            go_on()
            known = beyond._sets[kind].part(part) if beyond else set()
            yield from sorted(self._sets[kind].part(part) - known)


def _segments_of(chunks: ChunkReader, map_id: bytes) -> bytes:
    return without_zeros(load_map(chunks, map_id).segment_ids)


def _blocks_of(chunks: ChunkReader, segment_id: bytes) -> bytes:
    ids = chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
    if len(ids) % ID_BYTES:
        raise chunks.damage(f"segment/{segment_id.hex()}", "it is not a list of ids")
    return without_zeros(ids)
