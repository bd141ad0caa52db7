"""A look at the whole repository: which packs are there, what restore points need of them, what nobody needs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_copies import CopyJudge, choose_copies, give_up_copies
from proxy_worker.repository.collector_ids import part_count
from proxy_worker.repository.collector_marks import Index, Marks, chunks_to_move
from proxy_worker.repository.collector_needs import Needs
from proxy_worker.repository.collector_packs import ABSENT, Packs
from proxy_worker.repository.collector_removal import withdraw_from_index
from proxy_worker.repository.damage import load_damage
from proxy_worker.repository.errors import MissingBlockError, ShutOutError
from proxy_worker.repository.pack_layout import ChunkKind, pack_name
from proxy_worker.repository.points import Point, ended_runs, point_names, read_outcome
from proxy_worker.repository.reindex import describe_packs
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free
from proxy_worker.repository.withdrawal import honours_end


@dataclass
class Marking:
    """What a look found. Packs go by number."""

    access: Access
    points: frozenset[str]
    """Names of all outcomes that were read, ended or not."""
    needs: Needs
    also: Needs
    """What ended points need that somebody is reading."""
    packs: Packs
    index: Index
    marks: Marks
    left: dict[int, str] = field(default_factory=dict)
    """Packs that should have gone and couldn't, with the reason."""
    locked: dict[int, float] = field(default_factory=dict)
    """Packs that should have gone and are locked, with the time (Unix seconds) when that ends."""
    condemned: frozenset[int] = frozenset()

    def dead_packs(self) -> set[int]:
        """Packs that nothing is needed of."""
        live, unreadable = self.packs.live_bytes, self.packs.unreadable
        return {number for number in range(len(self.packs)) if not live[number] and number not in unreadable}

    def mostly_dead_packs(self, dead: set[int], *, unused_percent: float, most_bytes: int) -> set[int]:
        """The deadest of the others, until what is dead in the rest is `unused_percent` of what is live."""
        packs = self.packs
        partly = [number for number in range(len(packs)) if number not in dead and packs.dead_bytes(number)]
        partly.sort(key=lambda number: (-packs.dead_bytes(number) / packs.chunk_bytes[number], number))
        allowed = sum(packs.live_bytes) * unused_percent / 100
        unused = sum(map(packs.dead_bytes, partly))
        chosen: set[int] = set()
        for number in partly:
            if unused <= allowed or most_bytes <= 0:
                break
            chosen.add(number)
            unused -= packs.dead_bytes(number)
            most_bytes -= packs.chunk_bytes[number]
        return chosen

    def give_up_copies(self, leaving: set[int], *, go_on: Callable[[], None]) -> set[tuple[bytes, int, int]]:
        """See `collector_copies.give_up_copies`."""
        judge = CopyJudge(self.access, self.packs)
        return give_up_copies(judge, self.packs, self.marks.groups(), leaving, go_on=go_on)

    def chunks_to_move(self, packs: set[int], dropped: set[tuple[bytes, int, int]]) -> dict[int, array[int]]:
        """See `collector_marks.chunks_to_move`."""
        return chunks_to_move(self.index, self.needs, self.also, packs, dropped)


def mark_repository(access: Access, folder: Path, *, dry_run: bool, go_on: Callable[[], None]) -> Marking:
    """Look. Unless it is a `dry_run`, packs without a fragment get one, and fragments lose packs that are gone.

    Raises `DamageError` when a restore point, or a map or segment of one, can't be read.
    """
    folder.mkdir()
    # Points come before the index, the index before the packs: each is younger than what it needs.
    names = frozenset(point_names(access.store))
    access.index.refresh(thoroughly=True)
    parts = part_count(sum(run.record_count for run in access.index.runs))
    packs = Packs(access.store)
    if not dry_run:
        _forget_shut_out(access)
    undescribed = list(packs.not_in(access.index.runs))
    if undescribed and not dry_run:
        described = describe_packs(access, [packs.ids[number] for number in undescribed])
        packs.unreadable = {packs.ids.number(pack_id): why for pack_id, why in described.unreadable.items()}
        access.index.refresh()
    packs.damaged = {packs.ids.number(pack_id) for pack_id in load_damage(access.store, access.sealer).packs}
    index = Index(access.index.runs, packs)
    needs, also = Needs(folder / "needs", parts), Needs(folder / "also", parts)
    needs.gather(access, live_points(access, names), remembering=True, go_on=go_on)
    also.gather(access, ended_points(access, names), forgiving=True, go_on=go_on)
    marks = Marks(folder / "copies")
    marks.mark(index, packs, needs, also, go_on=go_on)
    choose_copies(packs, marks.groups())
    marking = Marking(access, names, needs, also, packs, index, marks)
    if not dry_run and not marks.missing_count:
        _forget_lost_packs(access, index)
    return marking


def require_resolved(access: Access, marking: Marking) -> None:
    """Raise `MissingBlockError` if points need what no pack holds."""
    if not marking.marks.missing_count:
        return
    named = ", ".join(f"{ChunkKind(kind).name.lower()} {found.hex()}" for kind, found in marking.marks.missing)
    raise MissingBlockError(
        f"collection of {access.store.location}",
        why=f"restore points need {marking.marks.missing_count} pieces that no pack holds: {named}",
        remedy="Nothing was deleted. `proxy-worker repository check` says which points: delete or mend them.",
    )


def live_points(access: Access, names: frozenset[str]) -> Iterator[Point]:
    """The points among `names` that haven't ended; raises `DamageError` for one that can't be read."""
    for name, vm_id, run, marked in _runs(access, names):
        if marked and honours_end(access, vm_id, run):
            continue
        try:
            outcome = read_outcome(access.store, access.sealer, name)
        except (ObjectNotFoundError, ShutOutError):
            continue  # ended and removed just now, or of somebody whose points don't count
        if isinstance(outcome, Point):
            yield outcome


def ended_points(access: Access, names: frozenset[str]) -> Iterator[Point]:
    """The points among `names` that have ended, as far as they can be read."""
    for name, _, _, marked in _runs(access, names):
        if not marked:
            continue
        try:
            outcome = read_outcome(access.store, access.sealer, name)
        except (ObjectNotFoundError, DamageError):
            continue
        if isinstance(outcome, Point):
            yield outcome


def _runs(access: Access, names: frozenset[str]) -> Iterator[tuple[str, str, str, bool]]:
    """Of each point its name, VM id and run, and whether there is a mark that it has ended.

    Marks are listed VM by VM, which takes far fewer requests than asking for each. One that comes after that ends
    its point for the next collection.
    """
    split = sorted((name.split("/")[1], name.split("/")[2], name) for name in names)
    for vm_id, runs in groupby(split, key=itemgetter(0)):
        ended = ended_runs(access.store, vm_id)
        yield from ((name, vm_id, run, run in ended) for _, run, name in runs)


def _forget_shut_out(access: Access) -> None:
    """Remove the fragments of writers that were shut out; packs of others that they describe get new ones."""
    for name, damage in access.index.damaged.items():
        if isinstance(damage, ShutOutError):
            delete_if_free(access.store, name)


def _forget_lost_packs(access: Access, index: Index) -> None:
    """Take packs that aren't there out of the index: what a collector left that was killed, or somebody lost."""
    fragments = set(index.fragments_of(lambda number: number == ABSENT))
    withdraw_from_index(access, fragments, lambda pack_id: not access.store.exists(pack_name(pack_id)))
