"""Keeping what restore points need locked, or its terms long: by whom, and who makes up for it where that is late.

A collection does it for all that points need, and leaves a note of when it began. What a new point takes over from
an earlier one was kept then. Where that is too long ago, whoever makes a point does it for all that point needs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.needed_packs import packs_needed
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.parity_object import PARITY_PREFIX
from proxy_worker.repository.points import StoredDisk
from proxy_worker.repository.store import ObjectNotFoundError, Store
from proxy_worker.repository.store.locks import ObjectLock, ObjectLocks, Original, locks_of
from proxy_worker.repository.store.terms import renew, upkeep_will_not_do

AT_ONCE: Final = 1000
"""Objects between two looks at whether to go on."""
_THREADS: Final = 16
_NOTE: Final = re.compile(r"kept/([0-9]{1,12})")
_DAY_S: Final = 24 * 3600
_LATE: Final = 1 / 4
"""Of a period: the upkeep leaves at least half of one, so that a new point has this much of everything."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of objects that are to stay."""

    extended: int
    hidden: tuple[Original, ...] = ()
    """Those that somebody has deleted or overwritten, and that are kept below."""


def with_parity(packs: Iterable[str], parity: Parity | None) -> Iterator[str]:
    """Names of packs, and those of their parity."""
    for name in packs:
        yield name
        if parity:
            yield PARITY_PREFIX + name.partition("/")[2]


def keep_named(store: Store, pack: str, parity: Parity | None) -> None:
    """Lock a pack for longer, where that is due, that somebody names who didn't write it."""
    if locks := locks_of(store):
        for name in with_parity([pack], parity):
            locks.extend_if_due(name)


def renew_packs(store: Store, packs: Iterable[str], parity: Parity | None) -> None:
    """The same where the store itself keeps terms, for all packs that somebody wrote or named."""
    renew(store, with_parity(packs, parity))


def extend(locks: ObjectLocks, originals: Iterable[Original], *, go_on: Callable[[], None]) -> Kept:
    """Extend the locks of objects where less than half a period is left."""
    left = iter(originals)
    extended, hidden = 0, list[Original]()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="extend") as threads:
        while some := list(islice(left, AT_ONCE)):
            go_on()
            hidden += [one for one in some if one.hidden]
            extended += sum(threads.map(locks.extend, some))
    return Kept(extended, tuple(hidden))


def note_kept(access: Access, began_at: float) -> None:
    """Leave word that all that points needed then (Unix seconds) is kept, in the place of earlier notes."""
    earlier = _notes(access)
    name = f"kept/{int(began_at)}"
    access.store.put_if_absent(name, [access.sealer.seal_object(name, b"")])
    for second in earlier:
        if second < int(began_at):
            access.store.delete(f"kept/{second}")


def keep_for_point(access: Access, chunks: ChunkReader, vm_id: str, disks: Sequence[StoredDisk]) -> None:
    """Keep what a point of these disks needs, unless the upkeep has done so lately, and has counted the points that
    it is taken over from. Raises `StoreError`, and `DamageError` where what is needed can't be found out."""
    store, locks = access.store, locks_of(access.store)
    ends = [f"ended/{vm_id}/{disk.parent}" for disk in disks if disk.parent]
    if locks is None:
        if upkeep_will_not_do(store, ends):
            renew_packs(store, sorted(packs_needed(chunks, disks)), access.parity)
    elif _is_late(access) or any(map(store.exists, ends)):
        needed = set(with_parity(packs_needed(chunks, disks), access.parity))
        prefixes = {f"{name.partition('/')[0]}/" for name in needed}
        found = (one for prefix in sorted(prefixes) for one in locks.originals(prefix) if one.name in needed)
        extend(locks, found, go_on=lambda: None)


def _is_late(access: Access) -> bool:
    lock = access.config.object_lock
    return isinstance(lock, ObjectLock) and time.time() - _kept_at(access) > lock.days * _DAY_S * _LATE


def _kept_at(access: Access) -> float:
    """When the upkeep last began that was carried through (Unix seconds); 0 if never. Times to come don't count."""
    now = time.time()
    for second in sorted(_notes(access), reverse=True):
        name = f"kept/{second}"
        try:
            if second <= now:
                access.sealer.open_object(name, access.store.get(name))
                return second
        except (ObjectNotFoundError, DamageError):
            continue
    return 0


def _notes(access: Access) -> list[int]:
    return [int(match[1]) for name in access.store.list("kept/") if (match := _NOTE.fullmatch(name))]
