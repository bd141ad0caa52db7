"""What somebody has deleted or overwritten in a bucket, though it was locked, and bringing it back.

Object lock keeps versions: a deletion puts a mark on top of them, and a write another version. Names are never used
again, so the oldest version of a name is the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from obstore.exceptions import PermissionDeniedError

from proxy_worker.repository.findings import Finding, FindingKind
from proxy_worker.repository.store.locks import HowHidden, ObjectLockRefusedError
from proxy_worker.repository.store.objects import ObjectStore
from proxy_worker.repository.store.retrying import persistently
from proxy_worker.repository.store.versions import Version, how_hidden, original_of

_CHECKED: Final[dict[str, FindingKind]] = {"config/": "config", "points/": "point", "packs/": "pack"}
BROUGHT_BACK: Final = ("config/", "keys/", "issued/", "seals/", "points/", "packs/")
"""Fragments of the index are made anew."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """An object that is there, and can't be seen."""

    original: Version
    later: tuple[Version, ...]
    """What came on top of it."""
    how: HowHidden

    @property
    def name(self) -> str:
        """The object's name."""
        return self.original.name

    @property
    def at(self) -> float:
        """When, in Unix seconds by the server's clock."""
        return max(version.modified_at for version in self.later)


def hidden_objects(
    store: ObjectStore, prefixes: Sequence[str] = BROUGHT_BACK, *, wanted: frozenset[str] = frozenset()
) -> Iterator[Hidden]:
    """The objects with these prefixes that something else is on top of; of points that have ended only those whose
    run is `wanted`."""
    for prefix in prefixes:
        with store.errors("list the versions of", prefix):
            for versions in store.versions.below(prefix):
                original, how = original_of(versions), how_hidden(versions)
                if original is None or how is None:
                    continue
                _, _, place = original.name.partition("points/")
                if place and place.rpartition("/")[2] not in wanted and store.exists(f"ended/{place}"):
                    continue
                later = tuple(version for version in versions if version is not original)
                yield Hidden(original, later, how)


def hidden_findings(store: ObjectStore) -> Iterator[Finding]:
    """The same as a check reports it, of what nobody has a reason to delete while it is locked."""
    for hidden in hidden_objects(store, tuple(_CHECKED)):
        kind = _CHECKED[hidden.name.partition("/")[0] + "/"]
        yield Finding(kind, hidden.name, problem_of(hidden.how))


def problem_of(how: HowHidden) -> str:
    """What has become of an object, in words."""
    return f"it was {how}, and is kept by its lock: `proxy-worker repository undelete` brings it back"


def bring_back(store: ObjectStore, hidden: Hidden) -> None:
    """Make an object what is seen under its name again: remove what is on top of it or, where that is locked, too,
    put a copy on top of that. Raises `StoreError`."""

    def uncover() -> None:
        try:
            for version in hidden.later:
                store.versions.delete(version)
        except PermissionDeniedError:
            store.versions.put_on_top(hidden.original)

    with store.errors("bring back", hidden.name):
        persistently(uncover)


def forget_ends(store: ObjectStore, runs: frozenset[str]) -> None:
    """Make the points of these runs count again, whoever has ended them: what they need is kept by its locks."""
    for name in list(store.list("ended/")) if runs else ():
        if name.rpartition("/")[2] in runs:
            store.delete(name)


def require_versions(store: object, location: str) -> ObjectStore:
    """`store` where it is one that can keep versions; raises `ObjectLockRefusedError`."""
    if not isinstance(store, ObjectStore):
        raise ObjectLockRefusedError(
            f"repository {location}",
            why="it isn't in a bucket, so nothing that was deleted is kept",
            remedy="Copy restore points back from a second repository.",
        )
    return store
