"""A hardened repository's store: what is named is locked before whoever put it hears that it is there.

A name that was given is never taken back, not even when the object can't be locked: others act on a restore point,
a list or a mark as soon as they see it. Its writer hears of the error, and it is locked when that one asks again,
or before the warden answers anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from proxy_worker.repository.store import Buffer, ObjectNotFoundError
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.local_writer import LocalStoreWriter
from proxy_worker.warden.client import WardenClient
from proxy_worker.warden.terms import folder_of, is_lockable
from proxy_worker.warden.warden import locked

_END: Final = "ended"


class HardenedStore(LocalStore):
    """A folder whose objects a warden locks. Raises `ConnectionError` too, while the warden is away."""

    def __init__(self, root: Path, warden: WardenClient) -> None:
        super().__init__(root)
        self._warden = warden

    def create(self, name: str) -> HardenedStoreWriter:
        """See `Store`."""
        return HardenedStoreWriter(self, name)

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`: of what is locked nothing is overwritten."""
        if not self.put_if_absent(name, chunks):
            (left_s,) = self._warden.left_s([name])
            raise locked(name, left_s)

    def make_sure(self, name: str) -> None:
        """Lock an object, if it is there and isn't locked."""
        if is_lockable(name):
            self._warden.lock(name)

    def require_over(self, point: str, mark: str) -> None:
        """Raise unless a restore point could be deleted, so that the mark that ends it may be put.

        `ObjectLockedError` while its term lasts, `ObjectNotFoundError` if there is none and has been none.
        """
        if not self.exists(point) and not self.exists(mark):
            raise ObjectNotFoundError(f"can't end {point}", why="there is no such restore point")
        self._warden.lock(point)  # who put it may not have come to that
        (left_s,) = self._warden.left_s([point])
        if left_s:
            raise locked(point, left_s)

    def delete(self, name: str) -> None:
        """See `Store`; raises `ObjectLockedError` while a term lasts."""
        if is_lockable(name) and self.exists(name):
            self._warden.release(name)
        super().delete(name)

    def has_terms(self) -> bool:
        """See `TermedStore`."""
        return True

    def renew(self, names: Iterable[str]) -> int:
        """See `TermedStore`."""
        return self._warden.renew(names)

    def keep(self) -> None:
        """See `TermedStore`."""
        self._warden.keep()

    def upkeep_is_overdue(self) -> bool:
        """See `TermedStore`."""
        return self._warden.overdue

    def left_s(self, names: Iterable[str]) -> Iterator[float]:
        """See `TermedStore`."""
        return self._warden.left_s(names)


class HardenedStoreWriter(LocalStoreWriter):
    """A file without a name yet, to be locked when it has one."""

    def __init__(self, store: HardenedStore, name: str) -> None:
        super().__init__(store, name)
        self._hardened = store

    def finish(self, *, replace: bool = False) -> bool:
        """See `StoreWriter`: also who comes second sees that it is locked; the first may have been killed.

        What ends a restore point gets its name when that could be deleted as well.
        """
        if folder_of(self._name) == _END:
            self._hardened.require_over(f"points/{self._name.partition('/')[2]}", self._name)
        named = super().finish(replace=replace)
        self._hardened.make_sure(self._name)
        return named
