"""What a clock of Redis that was set back leaves behind."""

from __future__ import annotations

import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import Ledger
from tests.ledger.calls import PROXY


def test_a_proxy_heard_of_in_the_future_is_away(ledger: Ledger, valkey: EmbeddedValkey) -> None:
    """As when Redis' clock was set back: else one that died before would count as alive for as long."""
    with redis.Redis(port=valkey.port, password=valkey.password) as client:
        client.hincrbyfloat("{pf}:proxy:proxy-1", "heartbeat", 3600)
    assert not ledger.view().proxies["proxy-1"].live
    ledger.heartbeat(PROXY)
    assert ledger.view().proxies["proxy-1"].live
