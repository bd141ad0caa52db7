"""A mover kept to its share: nothing before the first answer, what others leave it, the last one without Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger import Flow, Ledger, Traffic
from proxy_worker.mover.pacing import Pacing
from proxy_worker.node.address import address_towards
from proxy_worker.node.traffic import ShareKeeper
from tests.ledger.calls import PROXY, TIMINGS, held, registration
from tests.servers import own_valkey, valkey, valkey_server
from tests.tasks.fleet import wait_until

__all__ = ["own_valkey", "valkey", "valkey_server"]

LIMIT = 10_000_000
FLOW = Flow(TrafficKind.BACKUP, "remote", "proxy-1")


@pytest.fixture
def ledger(own_valkey: EmbeddedValkey) -> Iterator[Ledger]:
    with Ledger(own_valkey.url, password=own_valkey.password) as opened:
        opened.open_epoch(1, TIMINGS)
        opened.register(registration(slots=10), PROXY)
        opened.set_traffic(Traffic({"wan": LIMIT}, {FLOW: ["wan"]}))
        yield opened


def keeper(ledger: Ledger, task: str, job: str = "nightly") -> ShareKeeper:
    return ShareKeeper(ledger, held(ledger, task).fence, FLOW, job)


def test_nothing_may_be_sent_before_the_first_answer(ledger: Ledger) -> None:
    kept = keeper(ledger, "t1")
    assert not kept.pacing.ready()

    assert kept.ask()

    assert kept.pacing.ready()


def test_a_keeper_that_gives_something_up_confirms_it_at_once(ledger: Ledger) -> None:
    first, second = keeper(ledger, "t1", "nightly"), keeper(ledger, "t2", "hourly")
    first.ask()
    second.ask()
    first.ask()

    second.ask()

    assert second.rate_bytes_per_s == first.rate_bytes_per_s == LIMIT / 2


def test_threads_share_a_limit_and_take_over_what_one_leaves(ledger: Ledger) -> None:
    fence = held(ledger, "t2").fence
    first, second = keeper(ledger, "t1", "nightly"), ShareKeeper(ledger, fence, FLOW, "hourly")
    with first:
        with second:
            busy(first.pacing, second.pacing, until=lambda: first.rate_bytes_per_s == LIMIT / 2)
            busy(first.pacing, second.pacing, until=lambda: second.rate_bytes_per_s == LIMIT / 2)
        ledger.release(fence)

        busy(first.pacing, until=lambda: first.rate_bytes_per_s == LIMIT)


def test_a_mover_that_has_nothing_to_send_leaves_its_part_to_others(ledger: Ledger) -> None:
    idle, eager = keeper(ledger, "t1", "nightly"), keeper(ledger, "t2", "hourly")
    with idle, eager:
        busy(eager.pacing, until=lambda: (eager.rate_bytes_per_s or 0) > 0.99 * LIMIT)


def test_the_last_share_is_kept_while_redis_is_away(ledger: Ledger, own_valkey: EmbeddedValkey) -> None:
    first, second = keeper(ledger, "t1", "nightly"), keeper(ledger, "t2", "hourly")
    for _ in range(2):
        first.ask()
        second.ask()
    own_valkey.kill()

    assert first.ask()

    assert first.rate_bytes_per_s == LIMIT / 2


def test_a_task_that_is_lost_stands_still(ledger: Ledger) -> None:
    fence = held(ledger).fence
    kept = ShareKeeper(ledger, fence, FLOW, "nightly")
    kept.ask()
    ledger.release(fence)

    assert not kept.ask()

    assert not kept.pacing.ready()


def test_a_proxy_is_known_by_an_address_that_others_can_reach() -> None:
    for url in ("redis://127.0.0.1:6379/0", "unix:///run/redis.sock", "redis://no.such.host.invalid:6379"):
        found = address_towards(url)
        assert found is None or not ip_address(found).is_loopback


def busy(*paces: Pacing, until: Callable[[], bool]) -> None:
    """Want more than there is until something holds."""

    def held_yet() -> bool:
        for pace in paces:
            if pace.ready():
                pace.spend(LIMIT)
        return until()

    wait_until(held_yet, "the shares")
