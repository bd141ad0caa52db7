"""What a deployment asks of the running fleet: whether a proxy registered, whether it has come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy_worker.ledger import Ledger, ProxyView
from scheduler.dispatch.flight import at_rest
from scheduler.state.lock import is_served
from scheduler.state.models import Proxy
from scheduler.state.store import State

POLL_S: Final = 0.2


@dataclass(frozen=True)
class FleetWatch:
    """Over the ledger, and over what is declared."""

    ledger: Ledger
    state: State

    def proxy(self, name: str) -> ProxyView | None:
        """As the ledger knows it; raises `LedgerError`s."""
        return self.ledger.view().proxies.get(name)

    def running(self) -> int:
        """How many proxies take tasks."""
        with self.state.read() as session:
            disabled = {proxy.name for proxy in session.query(Proxy) if not proxy.enabled}
        return sum(
            proxy.live and not proxy.draining and proxy.name not in disabled
            for proxy in self.ledger.view().proxies.values()
        )

    def set_enabled(self, name: str, *, enabled: bool) -> bool:
        """Have the dispatcher give a proxy tasks, or none; whether that changed anything."""
        with self.state.write() as session:
            declared = session.get(Proxy, name)
            if declared is None or declared.enabled is enabled:
                return False
            declared.enabled = enabled
        return True

    def drained(self, name: str, timeout_s: float, say: Callable[[str], None]) -> bool:
        """Wait until a disabled proxy has ended its tasks, at most `timeout_s`; whether it has.

        One that isn't heard of any more, and has some, isn't waited for.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            view = self.ledger.view()
            proxy = view.proxies.get(name)
            if at_rest(view, name):
                return True
            if proxy is not None and not proxy.live:
                return False
            held = [task for task in view.tasks.values() if task.proxy == name]
            if proxy is not None and not held and not proxy.slots_used and not is_served(self.state):
                return True  # nobody tells it that it gets no more, nor gives it any
            say(f"waiting for {len(held)} of its tasks to end, {left_s:.0f} s at most")
            time.sleep(POLL_S)
        return False

    def registered(self, name: str, timeout_s: float) -> ProxyView | None:
        """Wait until a proxy is heard of that was started just now, at most `timeout_s`."""
        began = time.monotonic()
        while (waited_s := time.monotonic() - began) < timeout_s:
            proxy = self.proxy(name)
            if proxy is not None and proxy.heartbeat_age_s < waited_s:
                return proxy
            time.sleep(POLL_S)
        return None
