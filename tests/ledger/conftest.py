"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import (
    Ledger,
)
from tests.ledger.calls import PROXY, TIMINGS, Clock, registration
from tests.servers import own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]


@pytest.fixture
def ledger(valkey: EmbeddedValkey) -> Iterator[Ledger]:
    with Ledger(valkey.url, password=valkey.password) as opened:
        opened.open_epoch(1, TIMINGS)
        opened.register(registration(), PROXY)
        yield opened


@pytest.fixture
def clock(ledger: Ledger, valkey: EmbeddedValkey) -> Iterator[Clock]:
    with redis.Redis(port=valkey.port, password=valkey.password) as client:
        ledger.reap()
        yield Clock(ledger, client)
