"""The collector: frees what no restore point needs, beside any number of writers, readers and other collectors.

It takes no lock and trusts no clock. What it may delete it publishes first (`collector_lists.py`), so that writers
who register later keep away from it; then it waits until the runs that were at work have ended, and looks again.
Killed anywhere it leaves a repository that is whole, and a list that the next collector completes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_lists import CondemnedLists
from proxy_worker.repository.collector_locks import hidden_notes, keep_locked, locked_packs, needed_packs
from proxy_worker.repository.collector_marking import Marking, mark_repository, require_resolved
from proxy_worker.repository.collector_moving import ChunkMover
from proxy_worker.repository.collector_packs import ABSENT
from proxy_worker.repository.collector_removal import (
    delete_fragments,
    delete_packs,
    fragments_of,
    withdraw_from_index,
)
from proxy_worker.repository.collector_report import CollectionReport, Counted
from proxy_worker.repository.collector_rescue import packs_still_needed
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.pace import LOOK_AGAIN_S, Pace
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.parity_upkeep import remove_strays
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.resealing import reseal
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.withdrawal import remove_ended_points

_DAY_S: Final = 24 * 3600
_UNFINISHED_S: Final = _DAY_S
"""What an interrupted write has left goes when nobody has written to it for so long; who is at work does often."""


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """How eager a collector is."""

    dry_run: bool = False
    """Change nothing, say what would be done."""
    unused_percent: float = 3.0
    """Packs are rewritten, the deadest first, until what is dead in the others is this part of what is live."""
    rewrite_bytes: int = 256 * 1024**3
    """At most so many bytes of packs are rewritten at once; the next collection goes on."""
    pack_bytes: int = 64 * 1024 * 1024
    wait_s: float = 0.0
    """How long to wait for runs at work; what has to wait longer is completed by the next collection."""
    end_runs_after_s: float = 7 * _DAY_S
    """Runs whose writers have all left their last mark so long ago are ended by a tombstone, and readers' marks of
    that age ignored. Who is at work leaves one each day."""
    bytes_per_s: int | None = None
    """A limit for what is read to be moved; none by default."""


def collect(
    repository: Repository,
    settings: CollectorSettings | None = None,
    *,
    go_on: Callable[[], None] = lambda: None,
) -> CollectionReport:
    """Collect once: complete an unfinished list, then mark, move, condemn and, if nobody is at work, delete.

    `go_on` is called often and ends it by raising; whatever it leaves the next collection completes. Raises
    `DamageError` before anything is deleted if a restore point isn't whole, and `StoreError`.
    """
    with ScratchFolder("collect") as folder:
        collection = _Collection(repository.access, repository.unlocked, settings or CollectorSettings(), go_on)
        return collection.run(folder)


class _Collection:
    def __init__(
        self, access: Access, unlocked: Secrets | None, settings: CollectorSettings, go_on: Callable[[], None]
    ) -> None:
        self._access = access
        self._unlocked = unlocked
        self._settings = settings
        self._go_on = go_on
        self._lists = CondemnedLists(access)
        self._started = time.monotonic()
        self._began_at = time.time()
        self._report = CollectionReport(dry_run=settings.dry_run)

    def run(self, folder: Path) -> CollectionReport:
        try:
            return self._run(folder)
        except DamageError:
            # What points need can't be told. None of it is to run out of its lock before that is mended.
            if not self._settings.dry_run:
                self._keep(lambda _: True)
            raise

    def _run(self, folder: Path) -> CollectionReport:
        newest, unfinished = self._lists.newest()
        if self._settings.dry_run:
            marking = self._mark(folder / "marking")
            if unfinished is not None:
                self._note(waiting_for=self._names(self._still_at_work(self._lists.runs_at_work())))
            return self._finished(marking)
        if unfinished is not None and not self._complete(unfinished, None, folder / "earlier"):
            leaving = self._lists.condemned(unfinished)
            self._keep(lambda pack_id: pack_id not in leaving)
            return self._finished(None)
        self._lists.forget_ended()
        self._remove_leftovers()
        readers_for_s = self._settings.end_runs_after_s
        self._note(removed_points=remove_ended_points(self._access, readers_for_s=readers_for_s))
        marking = self._mark(folder / "marking")
        condemned = self._condemn(marking)
        self._keep(needed_packs(marking))
        if self._access.parity:
            remove_strays(self._access.store, lambda pack_id: marking.packs.ids.number(pack_id) != ABSENT)
        if condemned:
            number = newest + 1
            mine = self._lists.publish(number, condemned)
            self._complete(number, marking if mine else None, folder / "settling")
        self._note(resealed_keys=reseal(self._access, go_on=self._go_on))
        return self._finished(marking)

    def _keep(self, is_needed: Callable[[bytes], bool]) -> None:
        kept = keep_locked(self._access, is_needed, began_at=self._began_at, go_on=self._go_on)
        self._note(extended_locks=kept.extended, notes=(*self._report.notes, *hidden_notes(kept)))

    def _remove_leftovers(self) -> None:
        removed = self._access.store.remove_leftovers(before=time.time() - _UNFINISHED_S)
        if removed:
            note = f"{removed} unfinished objects of interrupted writes were removed"
            self._note(notes=(*self._report.notes, note))

    def _mark(self, folder: Path) -> Marking:
        marking = mark_repository(self._access, folder, dry_run=self._settings.dry_run, go_on=self._go_on)
        require_resolved(self._access, marking)
        return marking

    def _condemn(self, marking: Marking) -> set[bytes]:
        """Move what is needed out of packs that are mostly dead; the ids of all packs that may go then."""
        packs = marking.packs
        dead, rewritten = self._leaving(marking)
        dropped = marking.give_up_copies(dead | rewritten, go_on=self._go_on)
        dead = {number for number in dead if not packs.live_bytes[number]}
        if rewritten:
            mover = ChunkMover(
                self._access,
                packs,
                unlocked=self._unlocked,
                pack_bytes=self._settings.pack_bytes,
                after_bytes=Pace(self._settings.bytes_per_s, self._go_on),
            )
            moved = set(mover.move(marking.chunks_to_move(rewritten, dropped)))
            self._note(rewritten_packs=len(moved), moved_bytes=mover.moved_bytes, new_packs=mover.new_packs)
            marking.left.update(mover.left)
            dead |= moved
        marking.condemned = frozenset(dead)
        return {packs.ids[number] for number in dead}

    def _leaving(self, marking: Marking) -> tuple[set[int], set[int]]:
        """The packs that are dead, and those that are mostly so; what is locked stays, and is noted."""
        dead = marking.dead_packs()
        rewritten = marking.mostly_dead_packs(
            dead, unused_percent=self._settings.unused_percent, most_bytes=self._settings.rewrite_bytes
        )
        marking.locked = locked_packs(self._access, marking, dead | rewritten)
        return dead - marking.locked.keys(), rewritten - marking.locked.keys()

    def _complete(self, number: int, marking: Marking | None, folder: Path) -> bool:
        """Carry a list through; False while runs that may need its packs are at work."""
        lists, access = self._lists, self._access
        doomed = lists.doomed(number)
        if doomed is None:
            condemned, awaited = self._list(number)
            waiting = self._wait(awaited)
            if waiting:
                self._note(list_number=number, waiting_for=self._names(waiting))
                return False
            needed = packs_still_needed(access, condemned, marking, folder, go_on=self._go_on)
            doomed = lists.settle(number, condemned - needed)
            self._note(rescued_packs=len(condemned - doomed))
        access.index.refresh()
        partly, wholly = fragments_of(access.index.runs, doomed)
        present = dict(self._present(doomed, marking))
        left = withdraw_from_index(access, partly, doomed.__contains__)
        delete_fragments(access, wholly, go_on=self._go_on)
        if left:
            self._note(notes=(*self._report.notes, f"{left} fragments that can't be changed name deleted packs"))
        delete_packs(access, present, go_on=self._go_on)
        lists.finish(number)
        report = self._report
        freed_bytes = report.freed_bytes + sum(present.values())
        self._note(freed_packs=report.freed_packs + len(present), freed_bytes=freed_bytes)
        return True

    def _list(self, number: int) -> tuple[frozenset[bytes], tuple[tuple[str, str], ...]]:
        """The packs on a list, and the runs to wait for; none where it can't be read, so that nothing goes."""
        try:
            return self._lists.condemned(number), self._lists.awaited(number)
        except DamageError as error:
            self._note(notes=(*self._report.notes, f"{error.what}: {error.why}, so nothing goes by it"))
            return frozenset(), ()

    def _present(self, packs: Iterable[bytes], marking: Marking | None) -> Iterator[tuple[bytes, int]]:
        """Those that are there, or were when they were marked, with their size in bytes; other collectors may be
        deleting them just now."""
        for pack_id in packs:
            if marking and (number := marking.packs.ids.number(pack_id)) != ABSENT:
                yield pack_id, marking.packs.measure(number)
                continue
            with suppress(ObjectNotFoundError):
                yield pack_id, self._access.store.size(pack_name(pack_id))

    def _wait(self, runs: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Wait for runs to end; those that haven't when time is up."""
        deadline = time.monotonic() + self._settings.wait_s
        while waiting := self._still_at_work(runs):
            ended = list(self._lists.end_older_than(waiting, self._settings.end_runs_after_s))
            self._note(ended_runs=(*self._report.ended_runs, *self._names(ended)))
            if not ended:
                if time.monotonic() >= deadline:
                    return waiting
                self._go_on()
                time.sleep(min(LOOK_AGAIN_S, max(0.0, deadline - time.monotonic())))
        return []

    def _still_at_work(self, runs: tuple[tuple[str, str], ...] | set[tuple[str, str]]) -> list[tuple[str, str]]:
        return sorted(run for run in runs if not self._lists.has_ended(*run))

    def _finished(self, marking: Marking | None) -> CollectionReport:
        if marking:
            self._count(marking)
        self._note(duration_seconds=time.monotonic() - self._started)
        return self._report

    def _count(self, marking: Marking) -> None:
        packs = marking.packs
        if self._settings.dry_run:
            dead, rewritten = self._leaving(marking)
            self._note(
                freed_packs=len(dead) + len(rewritten),
                freed_bytes=sum(map(packs.measure, dead)) + sum(map(packs.dead_bytes, rewritten)),
                rewritten_packs=len(rewritten),
                moved_bytes=sum(packs.live_bytes[number] for number in rewritten),
            )
            gone = dead | rewritten
        else:
            gone = set(marking.condemned)
        self._note(
            points=marking.needs.points,
            packs=len(packs),
            live_bytes=sum(packs.live_bytes),
            kept=tuple(self._kept(marking, gone)),
        )

    def _kept(self, marking: Marking, gone: set[int]) -> Iterator[Counted]:
        packs = marking.packs
        kept = [number for number in range(len(packs)) if number not in gone]
        whole = [number for number in kept if not packs.dead_bytes(number) and number not in packs.unreadable]
        named = marking.left.keys() | marking.locked.keys()
        partly = [number for number in kept if packs.dead_bytes(number) and number not in named]
        if whole:
            yield Counted(len(whole), sum(map(packs.measure, whole)), "restore points need all of them")
        if partly:
            dead = sum(map(packs.dead_bytes, partly))
            size = sum(map(packs.measure, partly))
            why = f"{dead * 100 // size}% of that is dead, too little to rewrite them for"
            yield Counted(len(partly), size, why)
        if locked := marking.locked:
            last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(locked.values())))
            why = f"dead or mostly so, but locked, the last of them until {last} UTC"
            yield Counted(len(locked), sum(map(packs.measure, locked)), why)
        if waiting := self._report.waiting_for:
            size = sum(map(packs.measure, gone))
            yield Counted(len(gone), size, f"condemned, until {len(waiting)} runs have ended")
        for number, why in sorted((packs.unreadable | marking.left).items()):
            yield Counted(1, packs.measure(number), f"{pack_name(packs.ids[number])}: {why}")

    def _names(self, runs: list[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(f"{vm_id} {run}" for vm_id, run in runs)

    def _note(self, **changes: object) -> None:
        self._report = replace(self._report, **changes)  # type: ignore[arg-type]


__all__ = ["CollectionReport", "CollectorSettings", "collect"]
