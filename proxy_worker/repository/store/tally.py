"""Counting what is asked of a store."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from proxy_worker.contract.requests import StoreRequests

RequestKind = Literal["puts", "gets", "heads", "lists", "deletes"]


class RequestTally:
    """Counts requests, in any number of threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, kind: RequestKind, times: int = 1) -> None:
        """Note requests."""
        with self._lock:
            self._counts[kind] += times

    def so_far(self) -> StoreRequests:
        """All that were counted."""
        from proxy_worker.contract.requests import StoreRequests  # noqa: PLC0415 - heavy, and rarely wanted

        with self._lock:
            return StoreRequests(**self._counts)


class Counted(Protocol):
    """A store, as far as it counts."""

    requests: RequestTally | None


class RequestMeter:
    """Counts what is asked of a store from now on."""

    def __init__(self, store: Counted) -> None:
        self._tally = store.requests
        self._before = self._tally.so_far() if self._tally is not None else None

    def read(self) -> StoreRequests | None:
        """How much it was; None where requests cost nothing."""
        if self._tally is None or self._before is None:
            return None
        return self._tally.so_far().since(self._before)
