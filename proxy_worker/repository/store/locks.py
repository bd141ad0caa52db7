"""Object lock, as the repository sees it: what is locked, for how long, and by which stores.

A locked object can't be deleted or overwritten before its time by whoever holds a key of the store: in governance
mode by nobody without a special permission, in compliance mode by nobody at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import Store

LOCKED_PREFIXES: Final = ("config/", "keys/", "packs/", "parity/", "index/", "seals/", "points/", "issued/")
"""What mustn't vanish. Marks come and go, and what is known of proof and damage can be found out again."""


HowHidden: TypeAlias = Literal["deleted", "overwritten"]


class ObjectLock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a repository's objects are locked."""

    mode: Literal["governance", "compliance"]
    days: int
    """From when an object is put, or its lock extended."""


class ObjectLockRefusedError(StoreError):
    """The store can't lock objects, or doesn't keep to it."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Original:
    """An object as it was put, whatever somebody has put on top of it since."""

    name: str
    version_id: str
    hidden: HowHidden | None
    """What was done, though it is locked or was; None where it is seen under its name."""


class ObjectLocks(Protocol):
    """The locks of a store's objects. Every method raises `StoreError` or a kind of it."""

    def require_enforced(self) -> None:
        """Try out that the store locks, and keeps to it; raises `ObjectLockRefusedError`."""

    def locked_until(self, name: str) -> float:
        """Of what is seen under a name: Unix seconds, 0 when it isn't locked. Raises `ObjectNotFoundError`."""

    def originals(self, prefix: str) -> Iterator[Original]:
        """All objects whose names begin so, also those that were deleted or overwritten and are kept."""

    def extend(self, original: Original) -> bool:
        """Lock an object for a whole period from now if less than half of one is left; whether that was so.

        What isn't there can't be extended, and isn't missed here.
        """

    def extend_if_due(self, name: str) -> bool:
        """The same for the original of a name: a request more."""


@runtime_checkable
class LockableStore(Store, Protocol):
    """A store that can lock objects."""

    @property
    def locks(self) -> ObjectLocks | None:
        """None until `lock_objects`."""

    def lock_objects(self, lock: ObjectLock) -> None:
        """Lock what is put from now on under names that begin with `LOCKED_PREFIXES`."""


def lock_objects(store: Store, lock: ObjectLock) -> None:
    """Lock what is put into a store, if it can; others may hold a copy of a repository, to be read."""
    if isinstance(store, LockableStore):
        store.lock_objects(lock)


def locks_of(store: Store) -> ObjectLocks | None:
    """The locks of a store whose objects are being locked."""
    return store.locks if isinstance(store, LockableStore) else None


def require_locks(store: Store) -> ObjectLocks:
    """The same where nothing may be written without; raises `ObjectLockRefusedError`."""
    locks = locks_of(store)
    if locks is None:
        raise ObjectLockRefusedError(
            f"object lock of repository {store.location}",
            why="only object stores lock objects, and this is none",
            remedy="Write to the repository in its bucket; a copy elsewhere can be read.",
        )
    return locks


def begin_locking(store: Store, lock: ObjectLock) -> None:
    """Lock what is put into a store from now on, having tried that it can; raises `ObjectLockRefusedError`."""
    lock_objects(store, lock)
    require_locks(store).require_enforced()
