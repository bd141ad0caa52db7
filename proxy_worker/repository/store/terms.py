"""Terms: how long objects stay as they are in a store that sees to that itself, as a hardened repository's does.

Only such a store's own clock counts. Nothing else about it is different: what it doesn't let go of yet stays, and
goes another time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from proxy_worker.repository.store import ObjectLockedError, Store


@runtime_checkable
class TermedStore(Store, Protocol):
    """A store whose objects may have terms."""

    def has_terms(self) -> bool:
        """Whether objects have terms here at all."""

    def renew(self, names: Iterable[str]) -> int:
        """Begin the terms of packs anew that are due; how many were. What isn't there is left out."""

    def keep(self) -> None:
        """Take note that the upkeep has renewed all packs that restore points need."""

    def upkeep_is_overdue(self) -> bool:
        """Whether the upkeep did so too long ago, so that who makes a restore point has to; False without terms."""

    def left_s(self, names: Iterable[str]) -> Iterator[float]:
        """What is left of objects' terms, in seconds; 0 for those that may be deleted."""


def renew(store: Store, names: Iterable[str]) -> int:
    """Have packs stay for as long as a restore point that is made now; nothing to do in most stores."""
    return store.renew(names) if isinstance(store, TermedStore) else 0


def note_upkeep(store: Store) -> None:
    """Let the store know that all packs that restore points need have been renewed."""
    if isinstance(store, TermedStore):
        store.keep()


def upkeep_will_not_do(store: Store, ended: Iterable[str]) -> bool:
    """Whether who makes a restore point has to renew all packs that it needs, and not only those it names.

    That is when the upkeep is late, or has passed over them since a point that they are taken over from has ended:
    when there is an object of a name in `ended`.
    """
    if not isinstance(store, TermedStore) or not store.has_terms():
        return False
    return store.upkeep_is_overdue() or any(map(store.exists, ended))


def terms_left_s(store: Store, names: Sequence[str]) -> dict[str, float]:
    """Those of some objects that must stay yet, and for how many seconds; none in most stores."""
    if not isinstance(store, TermedStore):
        return {}
    return {name: left_s for name, left_s in zip(names, store.left_s(names), strict=True) if left_s > 0}


def delete_if_free(store: Store, name: str) -> bool:
    """Remove an object that may stay; False if it must stay yet."""
    try:
        store.delete(name)
    except ObjectLockedError:
        return False
    return True
