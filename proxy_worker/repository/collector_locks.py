"""A collector beside locked objects: it leaves alone what is locked, and keeps locked what restore points need.

Only it knows what all points need. So a pack's lock is extended by who names it anew, and by each collection for as
long as a point needs it; that of a dead pack runs out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Final

from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_marking import Marking
from proxy_worker.repository.collector_packs import ABSENT
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.pack_scan import pack_id_of
from proxy_worker.repository.parity_object import PARITY_PREFIX
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.locks import ObjectLocks, Original, locks_of
from proxy_worker.repository.store.terms import TermedStore, note_upkeep, renew, terms_left_s
from proxy_worker.repository.upkeep import AT_ONCE, Kept, extend, note_kept, with_parity

_THREADS: Final = 16
_KEYS: Final = ("keys/", "seals/", "issued/")
"""Of these somebody may have removed one: a passphrase."""
_NAMED: Final = 20


def locked_packs(access: Access, marking: Marking, numbers: Iterable[int]) -> dict[int, float]:
    """Those of some packs that are locked still, with the time (Unix seconds) when that ends."""
    locks = locks_of(access.store)
    chosen = list(numbers)
    now = time.time()
    if locks is None:
        by_name = {pack_name(marking.packs.ids[number]): number for number in chosen}
        left_s = terms_left_s(access.store, list(by_name))
        return {by_name[name]: now + left_s[name] for name in left_s}

    def until(number: int) -> float:
        try:
            return locks.locked_until(pack_name(marking.packs.ids[number]))
        except ObjectNotFoundError:
            return 0.0

    with ThreadPoolExecutor(_THREADS) as threads:
        ends = threads.map(until, chosen)
        return {number: end for number, end in zip(chosen, ends, strict=True) if end > now}


def keep_locked(
    access: Access, is_needed: Callable[[bytes], bool], *, began_at: float, go_on: Callable[[], None]
) -> Kept:
    """Extend the locks of the packs that are needed (by their ids), of points that haven't ended, and of the keys,
    where less than half a period is left, and note that it is done for all that was needed when that began."""
    locks = locks_of(access.store)
    if locks is None:
        return Kept(_renew(access, is_needed, go_on))
    needed = chain(
        locks.originals("config/"),
        (one for prefix in _KEYS for one in locks.originals(prefix) if one.hidden != "deleted"),
        _live_points(access, locks),
        *((one for one in locks.originals(prefix) if _is_of(one.name, is_needed)) for prefix in _prefixes(access)),
    )
    kept = extend(locks, needed, go_on=go_on)
    note_kept(access, began_at)
    return kept


def needed_packs(marking: Marking) -> Callable[[bytes], bool]:
    """Says of a pack, by its id, whether points need something of it."""
    packs, condemned = marking.packs, marking.condemned

    def is_needed(pack_id: bytes) -> bool:
        number = packs.ids.number(pack_id)
        return number != ABSENT and bool(packs.live_bytes[number]) and number not in condemned

    return is_needed


def hidden_notes(kept: Kept) -> Iterator[str]:
    """What a collection says of objects that it has found deleted or overwritten."""
    from proxy_worker.repository.undeleting import problem_of  # noqa: PLC0415 - loads obstore, and is rarely wanted

    for one in kept.hidden[:_NAMED]:
        yield f"{one.name}: {problem_of(one.hidden)}" if one.hidden else one.name
    if len(kept.hidden) > _NAMED:
        yield f"so it was with {len(kept.hidden) - _NAMED} more, which `proxy-worker repository check` names"


def _live_points(access: Access, locks: ObjectLocks) -> Iterator[Original]:
    """Points are listed before the marks of those that have ended, which may be out of sight."""
    points = list(locks.originals("points/"))
    ended = {name.partition("/")[2] for name in access.store.list("ended/")}
    return (one for one in points if one.name.partition("/")[2] not in ended)


def _prefixes(access: Access) -> tuple[str, ...]:
    return ("packs/", PARITY_PREFIX) if access.parity else ("packs/",)


def _is_of(name: str, is_needed: Callable[[bytes], bool]) -> bool:
    pack_id = pack_id_of(f"packs/{name.partition('/')[2]}")
    return pack_id is not None and is_needed(pack_id)


def _renew(access: Access, is_needed: Callable[[bytes], bool], go_on: Callable[[], None]) -> int:
    """The same where the store itself keeps terms, which only packs need anew: points have their own."""
    if not isinstance(access.store, TermedStore):
        return 0
    packs = (name for name in access.store.list("packs/") if _is_of(name, is_needed))
    needed, renewed = with_parity(packs, access.parity), 0
    while names := tuple(islice(needed, AT_ONCE)):
        go_on()
        renewed += renew(access.store, names)
    note_upkeep(access.store)
    return renewed
