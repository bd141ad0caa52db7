"""A hardened repository's store: what is named is locked before anybody hears that it is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.repository.store import Buffer
from proxy_worker.repository.store.local import LocalStore, LocalStoreWriter
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
        """See `Store`. What ends a restore point may be put when that could be deleted as well."""
        if folder_of(name) == _END:
            point = f"points/{name.partition('/')[2]}"
            (left_s,) = self._warden.left_s([point])
            if left_s:
                raise locked(point, left_s)
        return HardenedStoreWriter(self, name, self._warden)

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`: of what is locked nothing is overwritten."""
        if not self.put_if_absent(name, chunks):
            (left_s,) = self._warden.left_s([name])
            raise locked(name, left_s)

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

    def __init__(self, store: HardenedStore, name: str, warden: WardenClient) -> None:
        super().__init__(store, name)
        self._warden = warden

    def finish(self, *, replace: bool = False) -> bool:
        """See `StoreWriter`: also who comes second sees that it is locked; the first may have been killed."""
        named = super().finish(replace=replace)
        if is_lockable(self._name):
            try:
                self._warden.lock(self._name)
            except (OSError, ProxyfleetError):
                if named:
                    with suppress(StoreError):  # nothing unlocked stays
                        LocalStore.delete(self._store, self._name)
                raise
        return named
