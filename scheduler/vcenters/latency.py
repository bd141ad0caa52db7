"""Asks vCenters in a thread of its own how long datastores take to answer, for the dispatcher."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.vsphere.latency import SAMPLE_S, datastore_latency_ms
from proxy_worker.vsphere.session import Patience, Session, read_password
from scheduler.vcenters.account import Account

logger = logging.getLogger(__name__)

_PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class Watched:
    """A vCenter, and those of its datastores that are declared."""

    account: Account
    declared: Mapping[str, str]
    """The declared name by what vCenter calls it."""


@contextmanager
def _going_on() -> Iterator[None]:
    """Log what goes wrong: neither other vCenters nor later looks are to be lost by it."""
    try:
        yield
    except ProxyfleetError as error:
        logger.warning("how long datastores take to answer is not kept: %s", error)
    except Exception:
        # An answer that nobody foresaw must not end the thread.
        logger.exception("how long datastores take to answer is not kept")


class LatencyWatch:
    """Looks every `every_s` seconds, with one login at each vCenter."""

    def __init__(
        self,
        watched: Callable[[], tuple[Watched, ...]],
        record: Callable[[Mapping[str, float]], None],
        secrets_dir: Path,
        *,
        every_s: float = SAMPLE_S,
        patience: Patience = _PATIENCE,
    ) -> None:
        """`watched` and `record`, which gets milliseconds by declared datastore, are called in the thread."""
        self._watched = watched
        self._record = record
        self._secrets_dir = secrets_dir
        self._every_s = every_s
        self._patience = patience
        self._stop = threading.Event()
        self._sessions: dict[Account, Session] = {}
        self._thread = threading.Thread(target=self._run, name="datastore latency", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop looking, and log out."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._look()
                self._stop.wait(self._every_s)
        finally:
            for session in self._sessions.values():
                session.close()

    def _look(self) -> None:
        with _going_on():
            watched = self._watched()
            for former in self._sessions.keys() - {one.account for one in watched}:
                self._sessions.pop(former).close()
            for one in watched:
                with _going_on():
                    self._measure(one)

    def _measure(self, one: Watched) -> None:
        try:
            latencies = datastore_latency_ms(self._session(one.account))
        except ProxyfleetError as error:
            # Steps at this vCenter say what is wrong with it; without figures, nothing is held back.
            logger.info("no latencies: %s", error)
            refused = self._sessions.pop(one.account, None)
            if refused is not None:
                refused.close()  # vCenter has room for a limited number of them
            return
        self._record({one.declared[name]: took for name, took in latencies.items() if name in one.declared})

    def _session(self, account: Account) -> Session:
        if account not in self._sessions:
            endpoint = account.endpoint(self._patience)
            self._sessions[account] = Session(endpoint, read_password(endpoint, self._secrets_dir))
        return self._sessions[account]
