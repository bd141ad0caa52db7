"""The ledger's own tests once more, on Debian's Redis: the scheduler's calls as its user, a proxy's as its site's.

What a call needs and isn't allowed fails here, so that the rights in `users.py` are known to be enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger import Flow, Ledger, Share, Traffic
from proxy_worker.ledger.holding import ProxySide
from proxy_worker.ledger.shares import ShareSide
from tests.ledger import test_claims, test_leases, test_slots_and_caps, test_transitions
from tests.ledger.calls import PROXY, TIMINGS, Clock, held, registration
from tests.redis_server import SecureRedis

OF_PROXIES = {name for side in (ProxySide, ShareSide) for name in vars(side) if not name.startswith("_")}


class TwoUsers:
    """A ledger that is called as the scheduler where the scheduler calls, and as a proxy where proxies do."""

    def __init__(self, scheduler: Ledger, proxy: Ledger) -> None:
        self._sides = scheduler, proxy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sides[name in OF_PROXIES], name)


@pytest.fixture
def ledger(server: SecureRedis) -> Iterator[TwoUsers]:
    with server.client() as admin:
        admin.flushall()
    server.forget_refusals()
    with Ledger(server.access("scheduler")) as scheduler, Ledger(server.access("site-primary")) as proxy:
        scheduler.open_epoch(1, TIMINGS)
        proxy.register(registration(), PROXY)
        yield TwoUsers(scheduler, proxy)
    assert server.refused() == []


@pytest.fixture
def clock(ledger: Ledger, server: SecureRedis) -> Iterator[Clock]:
    with server.client() as admin:
        ledger.reap()
        yield Clock(ledger, admin)


for module in (test_transitions, test_claims, test_leases, test_slots_and_caps):
    globals().update({name: test for name, test in vars(module).items() if name.startswith("test_")})


def test_shares_of_limits(ledger: Ledger) -> None:
    flow = Flow(TrafficKind.BACKUP, "remote", "proxy-1")
    ledger.set_traffic(Traffic({"wan": 1000}, {flow: ["wan"]}))
    first, second = held(ledger, "t1").fence, held(ledger, "t2").fence

    assert ledger.share(first, flow, "nightly", serial=1, allowed=0, wanted=None) == Share(1000)
    assert ledger.share(second, flow, "hourly", serial=1, allowed=0, wanted=None) == Share(0)
    ledger.set_traffic(Traffic({}, {}))
    assert ledger.share(first, flow, "nightly", serial=2, allowed=1000, wanted=None) == Share(None)
