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
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.parity_object import parity_name
from proxy_worker.repository.points import live_point_names
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.locks import locks_of
from proxy_worker.repository.store.terms import note_upkeep, renew, terms_left_s

_THREADS: Final = 16
_AT_ONCE: Final = 1000
_KEYS: Final = ("config/", "keys/", "seals/", "issued/")


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


def keep_locked(access: Access, marking: Marking, *, go_on: Callable[[], None]) -> int:
    """Extend the locks of all that restore points need, and of the keys, where less than half a period is left; how
    many that were."""
    locks = locks_of(access.store)
    if locks is None:
        return _renew(access, marking, go_on)
    needed = chain(
        *(access.store.list(prefix) for prefix in _KEYS),
        live_point_names(access.store),
        _needed_packs(access, marking),
    )
    extended = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        while names := tuple(islice(needed, _AT_ONCE)):
            go_on()
            extended += sum(threads.map(locks.extend_if_due, names))
    return extended


def _renew(access: Access, marking: Marking, go_on: Callable[[], None]) -> int:
    """The same where the store itself keeps terms, which only packs need anew: points have their own."""
    needed, renewed = _needed_packs(access, marking), 0
    while names := tuple(islice(needed, _AT_ONCE)):
        go_on()
        renewed += renew(access.store, names)
    note_upkeep(access.store)
    return renewed


def _needed_packs(access: Access, marking: Marking) -> Iterator[str]:
    packs, condemned = marking.packs, marking.condemned
    live = (number for number in range(len(packs)) if packs.live_bytes[number] and number not in condemned)
    namings = (pack_name, parity_name) if access.parity else (pack_name,)
    return (naming(packs.ids[number]) for number in live for naming in namings)
