"""The locks of one repository's objects in a bucket."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import IO, Final

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError

from proxy_worker.repository.store import ObjectLockedError, ObjectNotFoundError
from proxy_worker.repository.store.locks import LOCKED_PREFIXES, ObjectLock, ObjectLockRefusedError, Original
from proxy_worker.repository.store.retrying import persistently
from proxy_worker.repository.store.versions import Version, Versions, how_hidden, original_of

_DAY_S: Final = 24 * 3600
_STAYING: Final = "packs/"
_MADE_ANEW: Final = "parity/"
"""Under a name that was used before: what counts is on top."""
_PROBE_S: Final = 3600
"""How long a probe is locked: longer than clocks differ."""

ErrorsOf = Callable[[str, str], AbstractContextManager[None]]
"""For an action and a name: what turns obstore's errors into a store's."""


class BucketLocks:
    """Implements `ObjectLocks`. What puts and removes raises obstore's errors, all else a store's."""

    def __init__(self, versions: Versions, lock: ObjectLock, place: str, errors: ErrorsOf) -> None:
        self._versions = versions
        self._lock = lock
        self._place = place
        self._errors = errors

    def put(self, name: str, body: bytes | IO[bytes], *, if_absent: bool = False) -> None:
        """Create an object that is locked from the start. Raises obstore's errors."""
        self._versions.put(name, body, self._lock, self._whole_period(), if_absent=if_absent)

    def remove(self, name: str) -> None:
        """Remove all versions of an object, so that its room is free.

        One that is locked only gets out of sight, as who replaces or removes something expects; but packs, which
        are large, stay. Raises obstore's errors, `ObjectLockedError`.
        """

        def remove() -> None:
            if name.startswith(LOCKED_PREFIXES) and self._is_locked(name):
                if name.startswith(_STAYING):
                    raise ObjectLockedError(f"can't delete {name} in {self._place}", why="its lock isn't over")
                self._versions.hide(name)
                return
            for versions in self._versions.below(name):
                if versions[0].name != name:
                    return
                try:
                    for version in reversed(versions):
                        self._versions.delete(version)
                except PermissionDeniedError:  # an earlier version is locked, or this key may only hide
                    self._versions.hide(name)

        persistently(remove)

    def locked_until(self, name: str) -> float:
        """See `ObjectLocks`."""
        with self._errors("read", name):
            return persistently(lambda: self._versions.locked_until(name))

    def originals(self, prefix: str) -> Iterator[Original]:
        """See `ObjectLocks`. A request for each thousand versions."""
        with self._errors("list the versions of", prefix):
            for versions in self._versions.below(prefix):
                if version := _kept_of(versions):
                    yield Original(version.name, version.version_id, how_hidden(versions))

    def extend(self, original: Original) -> bool:
        """See `ObjectLocks`."""
        name, version_id = original.name, original.version_id
        with suppress(ObjectNotFoundError), self._errors("lock", name):
            left_s = persistently(lambda: self._versions.locked_until(name, version_id)) - time.time()
            if left_s < self._lock.days * _DAY_S / 2:
                persistently(lambda: self._versions.lock(name, version_id, self._lock, self._whole_period()))
                return True
        return False

    def extend_if_due(self, name: str) -> bool:
        """See `ObjectLocks`."""
        first = next(self.originals(name), None)
        return first is not None and first.name == name and self.extend(first)

    def require_enforced(self) -> None:
        """See `ObjectLocks`. What it tries this on stays in the bucket, out of sight: a few bytes."""
        name = f"tmp/probe-{secrets.token_hex(8)}"
        until = time.time() + _PROBE_S
        with self._errors("lock", name):
            version_id = self._versions.put(name, b"probe", self._lock, until, if_absent=True)
            try:
                if not version_id or self._versions.locked_until(name) < int(until):
                    raise self._refused("it takes an object to be locked, and doesn't lock it")
                with suppress(PermissionDeniedError):
                    self._versions.delete(Version(name, version_id, None, 0.0, is_current=True))
                    raise self._refused("it deletes what is locked")
                with suppress(AlreadyExistsError):
                    self._versions.put(name, b"other", self._lock, until, if_absent=True)
                    raise self._refused("it overwrites an object where it is asked not to (If-None-Match)")
            finally:
                self._versions.hide(name)

    def _is_locked(self, name: str) -> bool:
        try:
            return self._versions.locked_until(name) > time.time()
        except FileNotFoundError:
            return False

    def _whole_period(self) -> float:
        return time.time() + self._lock.days * _DAY_S

    def _refused(self, why: str) -> ObjectLockRefusedError:
        return ObjectLockRefusedError(
            f"object lock in {self._place}",
            why=why,
            remedy="Use a server and a bucket with object lock, or make the repository without.",
        )


def _kept_of(versions: Sequence[Version]) -> Version | None:
    """The version that a lock is for, of one name's."""
    if versions[0].name.startswith(_MADE_ANEW):
        return next((version for version in versions if version.is_current and version.etag), None)
    return original_of(versions)
