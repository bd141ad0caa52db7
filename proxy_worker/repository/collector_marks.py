"""Comparing what is needed with what the index says is there, a part of all ids at a time."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from proxy_worker.repository.collector_ids import PREFIXES
from proxy_worker.repository.collector_needs import Needs
from proxy_worker.repository.collector_packs import ABSENT, Packs
from proxy_worker.repository.fragments import PLACED
from proxy_worker.repository.index_run import IndexRun

_PLACE: Final = struct.Struct("<III")
"""Of a record, behind the id: pack, offset, stored length."""
_GROUP: Final = struct.Struct("<32sBI")
"""Id, kind, copies."""

_MOST_NAMED: Final = 5

Record = tuple[bytes, int, int, int, int]
"""Id, kind, and the place of a copy: number of the pack, offset and stored length."""


class Copy(NamedTuple):
    """Where a copy lies: number of the pack, offset and stored length."""

    pack: int
    offset: int
    stored_length: int


class CopyGroup(NamedTuple):
    """Something that points need and that is stored more than once."""

    content_id: bytes
    kind: int
    copies: tuple[Copy, ...]


class Index:
    """A look at the index's runs that doesn't change, with each run's packs by their numbers."""

    def __init__(self, runs: Sequence[IndexRun], packs: Packs) -> None:
        self.runs = tuple(runs)
        self._places = [packs.places_in(run) for run in runs]

    def records(self, part: int, parts: int) -> Iterator[Record]:
        """Each copy in one part of all ids, but those in packs that aren't there."""
        step = PREFIXES // parts
        for run, places in zip(self.runs, self._places, strict=True):
            low, high = run.lower_bound(part * step), run.lower_bound((part + 1) * step)
            for content_id, place, offset, stored_length, kind in PLACED.iter_unpack(run.joined_records(low, high)):
                number = places[place]
                if number != ABSENT:
                    yield content_id, kind, number, offset, stored_length

    def fragments_of(self, pack: Callable[[int], bool]) -> Iterator[bytes]:
        """The ids of fragments that describe a pack for whose number (or `ABSENT`) `pack` holds."""
        for run, places in zip(self.runs, self._places, strict=True):
            for place, number in enumerate(places):
                if pack(number):
                    yield run.fragment_of(place)


class Marks:
    """The result of comparing: bytes needed of each pack, what is there more than once, and what isn't there."""

    def __init__(self, path: Path) -> None:
        self.missing: list[tuple[int, bytes]] = []
        """Kind and id of the first few that no pack holds."""
        self.missing_count = 0
        self._path = path
        path.touch()

    def groups(self) -> Iterator[CopyGroup]:
        """What is stored more than once."""
        with self._path.open("rb") as file:
            while head := file.read(_GROUP.size):
                content_id, kind, count = _GROUP.unpack(head)
                body = file.read(count * _PLACE.size)
                yield CopyGroup(content_id, kind, tuple(Copy._make(copy) for copy in _PLACE.iter_unpack(body)))

    def mark(
        self,
        index: Index,
        packs: Packs,
        needs: Needs,
        also: Needs,
        *,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Count. What only `also` needs isn't missed when it isn't there."""
        with self._path.open("wb") as file:
            for part in range(needs.parts):
                go_on()
                strict, lenient = needs.part(part), also.part(part)
                wanted = [first | second for first, second in zip(strict, lenient, strict=True)]
                found = self._count(index.records(part, needs.parts), packs, wanted, file)
                self._note_missing(strict, found)

    def _count(
        self, records: Iterable[Record], packs: Packs, wanted: Sequence[set[bytes]], file: BinaryIO
    ) -> Set[bytes]:
        """Count what is wanted, and write what there are several copies of; the ids of all that is there."""
        chunk_bytes, wanted_bytes = packs.chunk_bytes, packs.wanted_bytes
        found: dict[bytes, Record] = {}
        several: dict[bytes, list[tuple[int, int, int]]] = {}
        for record in records:
            content_id, kind, pack, _, stored_length = record
            chunk_bytes[pack] += stored_length
            if content_id not in wanted[kind]:
                continue
            first = found.setdefault(content_id, record)
            if first is not record:
                copies = several.setdefault(content_id, [first[2:]])
                if record[2:] in copies:
                    continue
                copies.append(record[2:])
            wanted_bytes[pack] += stored_length
        for content_id, (_, kind, pack, _, stored_length) in found.items():
            copies = several.get(content_id, [])
            if len(copies) > 1:
                file.write(_GROUP.pack(content_id, kind, len(copies)))
                file.write(b"".join(_PLACE.pack(*copy) for copy in copies))
            else:
                packs.live_bytes[pack] += stored_length
        return found.keys()

    def _note_missing(self, strict: Sequence[set[bytes]], found: Set[bytes]) -> None:
        for kind, ids in enumerate(strict):
            missing = ids - found
            self.missing_count += len(missing)
            for content_id in sorted(missing)[: _MOST_NAMED - len(self.missing)]:
                self.missing.append((kind, content_id))


def chunks_to_move(
    index: Index, needs: Needs, also: Needs, packs: set[int], dropped: set[tuple[bytes, int, int]]
) -> dict[int, array[int]]:
    """By pack, the offsets of chunks that stay needed when `dropped` (id, pack, offset) copies are given up.

    A chunk of several blocks stays needed for any one of them.
    """
    offsets: dict[int, array[int]] = {number: array("I") for number in packs}
    for part in range(needs.parts):
        wanted = [first | second for first, second in zip(needs.part(part), also.part(part), strict=True)]
        for content_id, kind, pack, offset, _ in index.records(part, needs.parts):
            moves = pack in offsets and content_id in wanted[kind]
            if moves and (content_id, pack, offset) not in dropped:
                offsets[pack].append(offset)
    return offsets
