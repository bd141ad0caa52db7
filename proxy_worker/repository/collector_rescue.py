"""The second look: which condemned packs are needed after all, by runs that were at work when they were condemned.

Points that the first look has seen need no condemned pack: it left them another copy of everything. So the one who
looked first only looks at points that have come since. Whoever completes another's list looks at all of them.
Points that have ended since count as well, as long as their object is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_copies import CopyJudge
from proxy_worker.repository.collector_ids import part_count
from proxy_worker.repository.collector_marking import Marking, ended_points, live_points
from proxy_worker.repository.collector_marks import Copy, CopyGroup, Index
from proxy_worker.repository.collector_needs import Needs
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.points import point_names


def packs_still_needed(
    access: Access,
    condemned: frozenset[bytes],
    marking: Marking | None,
    folder: Path,
    *,
    go_on: Callable[[], None],
) -> frozenset[bytes]:
    """The condemned packs that hold something needed of which no other pack has a proven copy.

    `marking` is the look after which they were condemned, None if another collector's. Raises `DamageError`.
    """
    if not condemned:
        return condemned
    folder.mkdir()
    names = frozenset(point_names(access.store))
    if marking and not (names := names - marking.points):
        return frozenset()
    access.index.refresh(thoroughly=True)
    records = sum(run.record_count for run in access.index.runs)
    parts = marking.needs.parts if marking else part_count(records)
    packs = Packs(access.store)
    index = Index(access.index.runs, packs)
    needs, ended = Needs(folder / "needs", parts), Needs(folder / "ended", parts)
    beyond = marking.needs if marking else None
    needs.gather(access, live_points(access, names), beyond=beyond, go_on=go_on)
    ended.gather(access, ended_points(access, names), beyond=beyond, forgiving=True, go_on=go_on)
    listed = {packs.ids.number(pack_id) for pack_id in condemned}
    judge = CopyJudge(access, packs)
    rescued: set[int] = set()
    for part in range(parts):
        go_on()
        known = beyond.part(part) if beyond else (set(), set(), set())
        wanted = [
            (first | second) - third
            for first, second, third in zip(needs.part(part), ended.part(part), known, strict=True)
        ]
        if any(wanted):
            for group in _groups(index, part, parts, wanted):
                rescued |= _needed_of(group, listed, judge)
    return frozenset(packs.ids[number] for number in rescued)


def _groups(index: Index, part: int, parts: int, wanted: list[set[bytes]]) -> list[CopyGroup]:
    found: dict[bytes, tuple[int, list[Copy]]] = {}
    for content_id, kind, *place in index.records(part, parts):
        if content_id in wanted[kind]:
            found.setdefault(content_id, (kind, []))[1].append(Copy(*place))
    return [CopyGroup(content_id, kind, tuple(copies)) for content_id, (kind, copies) in found.items()]


def _needed_of(group: CopyGroup, listed: set[int], judge: CopyJudge) -> set[int]:
    """The listed packs whose copies can't go."""
    going = [copy for copy in group.copies if copy.pack in listed]
    staying = [copy for copy in group.copies if copy.pack not in listed]
    if not going or any(judge.is_whole(group, copy) for copy in staying):
        return set()
    return {copy.pack for copy in going if not any(judge.same(group, kept, copy) for kept in staying)}
