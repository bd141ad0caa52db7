"""The numbered lists by which collectors agree, without a lock, on what goes.

For list n: `condemned/<n>` names the packs that may go; whoever creates it first wins and the others help.
`awaited/<n>` names the runs that were at work after that: only they can have come to need a condemned pack.
`doomed/<n>` names what does go, settled when all of them had ended; `condemned/<n>.done` says that it has gone.
Each is created if absent, so that any number of collectors do the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.errors import RepositoryDamageError
from proxy_worker.repository.pack_layout import PACK_ID_BYTES
from proxy_worker.repository.points import Tombstone, encode_outcome, is_ended, point_name
from proxy_worker.repository.registration import (
    CondemnedList,
    WriterMark,
    age_s,
    encode_condemned,
    forget_writers,
)
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError

_LIST: Final = re.compile(r"condemned/([0-9]{1,18})(\.done)?")
_OF_LIST: Final = re.compile(r"(?:awaited|doomed)/([0-9]{1,18})")
_MARK_PARTS: Final = 4


class AwaitedRuns(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The runs that a list waits for."""

    runs: tuple[tuple[str, str], ...]
    """VM id and run."""


class CondemnedLists:
    """The lists of one repository."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._store = access.store
        self._sealer = access.sealer

    def newest(self) -> tuple[int, int | None]:
        """The highest number, and the lowest one that isn't done.

        A number counts also if only what was settled for its list is left, as where somebody has removed one that
        couldn't be read: that mustn't hold for another. It is listed first, since a list is older than that.
        """
        left = {int(match[1]) for name in self._settled() if (match := _OF_LIST.fullmatch(name))}
        published, done = self._published()
        return max(left | published | done, default=0), min(published - done, default=None)

    def is_open(self) -> bool:
        """Whether there is a list that isn't done."""
        published, done = self._published()
        return bool(published - done)

    def _settled(self) -> Iterator[str]:
        for prefix in ("awaited/", "doomed/"):
            yield from self._store.list(prefix)

    def _published(self) -> tuple[set[int], set[int]]:
        """The numbers of all lists, and of those that are done."""
        published: set[int] = set()
        done: set[int] = set()
        for name in self._store.list("condemned/"):
            if match := _LIST.fullmatch(name):
                (done if match[2] else published).add(int(match[1]))
        return published, done

    def publish(self, number: int, packs: Iterable[bytes]) -> bool:
        """Condemn packs; False when another collector was first with this number."""
        content = encode_condemned(self._sealer, number, packs)
        return self._store.put_if_absent(f"condemned/{number}", [content])

    def condemned(self, number: int) -> frozenset[bytes]:
        """The packs on a list."""
        return self._packs(f"condemned/{number}")

    def awaited(self, number: int) -> tuple[tuple[str, str], ...]:
        """The runs to wait for, as the first one to look saw them after the list was published."""
        name = f"awaited/{number}"
        if not self._store.exists(name):
            runs = AwaitedRuns(tuple(sorted(self.runs_at_work())))
            self._put(name, msgspec.msgpack.encode(runs))
        try:
            return msgspec.msgpack.decode(self._get(name), type=AwaitedRuns).runs
        except msgspec.MsgspecError as error:
            raise self._sealer.damage(name, "it is not a list of runs") from error

    def doomed(self, number: int) -> frozenset[bytes] | None:
        """What has been settled to go; None while nothing has."""
        name = f"doomed/{number}"
        if not self._store.exists(name):
            return None
        try:
            return self._packs(name)
        except DamageError as error:
            raise RepositoryDamageError(
                error.what,
                why=error.why,
                remedy="While no collection runs, remove this file: the next one settles anew what goes.",
            ) from error

    def settle(self, number: int, packs: Iterable[bytes]) -> frozenset[bytes]:
        """Settle it; what counts is what the first one settled."""
        name = f"doomed/{number}"
        self._put(name, msgspec.msgpack.encode(CondemnedList(b"".join(sorted(packs)))))
        return self._packs(name)

    def finish(self, number: int) -> None:
        """All doomed packs have gone; the others may be used again."""
        self._put(f"condemned/{number}.done", b"")

    def runs_at_work(self) -> set[tuple[str, str]]:
        """The runs that writers are registered for and that haven't ended."""
        return {(vm_id, run) for vm_id, run in self._registered_runs() if not self.has_ended(vm_id, run)}

    def has_ended(self, vm_id: str, run: str) -> bool:
        """Whether a run has its point, its tombstone, or had its point removed."""
        return self._store.exists(point_name(vm_id, run)) or is_ended(self._store, vm_id, run)

    def end_older_than(self, runs: Iterable[tuple[str, str]], limit_s: float) -> Iterator[tuple[str, str]]:
        """Put a tombstone for each run whose writers have all left their last mark so long ago; yields those.

        By the clocks of writers and this machine: a wrong one costs a run, never data.
        """
        for vm_id, run in runs:
            if min(map(age_s, self._registered(vm_id, run)), default=limit_s) >= limit_s:
                reason = "a collector waited long enough for it"
                tombstone = Tombstone(vm_id=vm_id, run=run, reason=reason, created_at=time.time())
                self._store.put_if_absent(point_name(vm_id, run), [encode_outcome(self._sealer, tombstone)])
                forget_writers(self._store, vm_id=vm_id, run=run)
                yield vm_id, run

    def forget_ended(self) -> None:
        """Remove the marks of writers whose runs have ended: killed before they could."""
        for vm_id, run in self._registered_runs():
            if self.has_ended(vm_id, run):
                forget_writers(self._store, vm_id=vm_id, run=run)

    def _registered_runs(self) -> set[tuple[str, str]]:
        """Of files that are no writer's mark nothing is known, and nothing is waited for."""
        marks = (name.split("/") for name in self._store.list("writers/"))
        return {(mark[1], mark[2]) for mark in marks if len(mark) == _MARK_PARTS}

    def _registered(self, vm_id: str, run: str) -> Iterator[float]:
        for name in list(self._store.list(f"writers/{vm_id}/{run}/")):
            try:
                yield msgspec.msgpack.decode(self._get(name), type=WriterMark).started_at
            except (ObjectNotFoundError, DamageError, msgspec.MsgspecError):
                continue  # says nothing of its age

    def _packs(self, name: str) -> frozenset[bytes]:
        try:
            ids = msgspec.msgpack.decode(self._get(name), type=CondemnedList).pack_ids
        except msgspec.MsgspecError as error:
            raise self._sealer.damage(name, "it is not a list of packs") from error
        return frozenset(ids[at : at + PACK_ID_BYTES] for at in range(0, len(ids), PACK_ID_BYTES))

    def _get(self, name: str) -> bytes:
        try:
            data = self._store.get(name)
        except ObjectUnreadableError as error:
            raise self._sealer.damage(name, f"it can't be read: {error.why}") from error
        payload, _ = self._sealer.open_object(name, data)
        return payload

    def _put(self, name: str, payload: bytes) -> None:
        self._store.put_if_absent(name, [self._sealer.seal_object(name, payload)])
