"""The heart: a thread of the main process that keeps the proxy registered and subscribed as it was ordered."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.names import proxy_lane
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.ledger import Forfeited, Ledger, ProxyIdentity, ProxyNameTakenError
from proxy_worker.node.draining import Draining
from proxy_worker.node.fitness import why_unfit
from proxy_worker.node.task_log import Coroner, last_words

log = logging.getLogger(__name__)


class Heart:
    """Beats every `heartbeat_s` of the ledger's timings, at once when a pool process has died."""

    def __init__(
        self,
        ledger: Ledger,
        registration: ProxyRegistration,
        identity: ProxyIdentity,
        draining: Draining,
        *,
        state_dir: Path,
        subscribe: Callable[[frozenset[str]], None],
        name_lost: Callable[[ProxyNameTakenError], None],
    ) -> None:
        """`subscribe` gets all lanes to be consumed, at every beat; `name_lost` hears of a life that took over."""
        self._state_dir = state_dir
        self._coroner = Coroner()
        self._unfit = ""
        self._ledger = ledger
        self._registration = registration
        self._anew: Callable[[], ProxyRegistration] | None = None
        self._identity = identity
        self._draining = draining
        self._subscribe = subscribe
        self._name_lost = name_lost
        self._stopping = threading.Event()
        self._dead: queue.SimpleQueue[tuple[str, int, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self._told = False
        self.deaths = 0
        """How many pool processes died over a task."""

    @property
    def heard(self) -> bool:
        """Whether the ledger heard the last beat."""
        return not self._told

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and leave the fleet in order."""
        self._stopping.set()
        self._dead.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def process_died(self, task_id: str, number: int, said: str) -> None:
        """Hear that the pool process that had taken this message is dead, and what is `said` of its end.

        Doesn't wait for the ledger.
        """
        self.deaths += 1
        self._dead.put((task_id, number, said))

    def beat_now(self) -> None:
        """Beat without waiting for the next time, e.g. to announce that the proxy drains."""
        self._dead.put(None)

    def register_anew(self, registration: Callable[[], ProxyRegistration]) -> None:
        """Say what `registration` returns of this proxy from the next beat on, which comes at once."""
        self._anew = registration
        self._dead.put(None)

    def _beat(self) -> None:
        heartbeat_s = 0.0
        while not self._stopping.is_set():
            try:
                heartbeat_s = heartbeat_s or self._ledger.timings().heartbeat_s
                self._once()
            except ProxyNameTakenError as error:
                self._name_lost(error)
                return
            except LedgerError as error:
                if not self._told:
                    log.warning("the ledger doesn't hear this proxy: %s", error)
                    self._told = True
            self._wait(heartbeat_s or 1.0)

    def _once(self) -> None:
        fresh = self._anew() if self._anew is not None else self._registration
        if fresh != self._registration:
            self._ledger.register(fresh, self._identity)
            self._registration = fresh
        orders = self._ledger.heartbeat(
            self._identity, draining=self._draining.draining or bool(self._unfit), note=self._unfit
        )
        if orders is None:
            log.warning("the ledger has forgotten this proxy; registering again")
            self._ledger.register(self._registration, self._identity)
            return
        if self._told:
            log.info("the ledger hears this proxy again")
            self._told = False
        self._examine(orders.server_time)
        self._subscribe(frozenset({proxy_lane(self._registration.site, self._identity.name), *orders.lanes}))

    def _examine(self, server_time_s: float | None) -> None:
        unfit = why_unfit(self._state_dir, server_time_s)
        if bool(unfit) != bool(self._unfit):
            if unfit:
                log.error("this proxy takes nothing new: %s", unfit)
            else:
                log.info("this proxy is fit for work again")
            self.beat_now()
        self._unfit = unfit

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                dead = self._dead.get(timeout=left_s)
            except queue.Empty:
                return
            if dead is None:
                return
            self._forfeit(*dead)

    def _forfeit(self, task_id: str, number: int, said: str) -> None:
        words = last_words(self._state_dir, task_id, number)
        why = self._coroner.cause(said, words)
        about = {"task": task_id}
        try:
            match self._ledger.forfeit(task_id, number, self._identity, why=why, log=words):
                case Forfeited.READY:
                    log.warning("task %s: its process %s; it is ready again", task_id, why, extra=about)
                case Forfeited.ENDED:
                    log.error("task %s: its process %s; it isn't tried again", task_id, why, extra=about)
        except LedgerError as error:
            log.warning("task %s: its process died, its lease has to run out: %s", task_id, error, extra=about)
