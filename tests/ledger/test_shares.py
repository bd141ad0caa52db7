"""Shares of traffic rules' limits: leased, equal between jobs, never more in all than the limit."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger import Claim, Flow, Ledger, Share, StaleEpochError, Traffic
from tests.ledger.calls import FAILURE, PROXY, TIMINGS, Clock, held, registration
from tests.tasks.fleet import wait_until

LIMIT = 10_000_000
WAN = Flow(TrafficKind.BACKUP, "remote", "proxy-1")
BRANCH = Flow(TrafficKind.BACKUP, "branch", "proxy-1")
ONE_RULE = Traffic({"wan": LIMIT}, {WAN: ["wan"]})


@dataclass
class Sender:
    """A task's process that spends what it was last allowed."""

    ledger: Ledger
    claim: Claim
    job: str
    flow: Flow = WAN
    wanted: float | None = None
    allowed: float | None = 0.0
    serial: int = field(default=0)

    def ask(self, *, heard: bool = True) -> Share:
        self.serial += 1
        share = self.ledger.share(
            self.claim.fence,
            self.flow,
            self.job,
            serial=self.serial,
            allowed=self.allowed or 0.0,
            wanted=self.wanted,
        )
        if heard:
            self.allowed = share.bytes_per_s
        return share


@pytest.fixture
def wan(ledger: Ledger) -> Ledger:
    """A ledger with one rule, and slots for everybody."""
    ledger.register(registration(slots=100), PROXY)
    ledger.set_traffic(ONE_RULE)
    return ledger


def sender(ledger: Ledger, task: str, job: str = "", **more: object) -> Sender:
    return Sender(ledger, held(ledger, task), job or task, **more)  # type: ignore[arg-type]  # fields, by name


def settle(*senders: Sender) -> list[float]:
    """Everybody asks often enough for what one gives up to reach the others."""
    for _ in range(5):
        for one in senders:
            one.ask()
    return [one.allowed or 0.0 for one in senders]


def test_nothing_is_limited_that_no_rule_holds_for(wan: Ledger) -> None:
    assert sender(wan, "t1", flow=BRANCH).ask() == Share(None)


def test_nobody_gets_what_another_has_not_confirmed_to_have_given_up(wan: Ledger) -> None:
    first, second = sender(wan, "t1"), sender(wan, "t2")
    assert first.ask().bytes_per_s == LIMIT
    assert second.ask().bytes_per_s == 0

    assert first.ask(heard=False).bytes_per_s == LIMIT / 2
    assert second.ask().bytes_per_s == 0, "the first may not have heard that it has to be content with half"

    first.ask()
    assert second.ask().bytes_per_s == 0
    first.ask()
    assert second.ask().bytes_per_s == LIMIT / 2


def test_jobs_have_equal_parts_however_many_tasks_they_have(wan: Ledger) -> None:
    many = [sender(wan, f"many-{n}", "many") for n in range(4)]
    one = sender(wan, "one", "one")

    rates = settle(*many, one)

    assert rates == pytest.approx([LIMIT / 8] * 4 + [LIMIT / 2])


def test_what_one_does_not_want_the_others_have(wan: Ledger) -> None:
    modest, first, second = sender(wan, "t1", wanted=1_000_000), sender(wan, "t2"), sender(wan, "t3")

    assert settle(modest, first, second) == pytest.approx([1_000_000, 4_500_000, 4_500_000])


def test_the_lowest_rule_counts_and_none_is_exceeded(wan: Ledger) -> None:
    wan.set_traffic(Traffic({"wan": LIMIT, "branch": 2_000_000}, {WAN: ["wan"], BRANCH: ["branch", "wan"]}))
    narrow, wide = sender(wan, "t1", flow=BRANCH), sender(wan, "t2")

    assert settle(narrow, wide) == pytest.approx([2_000_000, 8_000_000])


def test_a_changed_limit_counts_at_once_and_one_that_is_removed_no_longer(wan: Ledger) -> None:
    first, second = sender(wan, "t1"), sender(wan, "t2")
    settle(first, second)

    wan.set_traffic(Traffic({"wan": LIMIT // 2}, {WAN: ["wan"]}))
    assert [first.ask().bytes_per_s, second.ask().bytes_per_s] == [LIMIT / 4, LIMIT / 4]

    wan.set_traffic(Traffic({}, {}))
    assert first.ask() == Share(None)


def test_the_share_of_a_silent_holder_is_kept_for_as_long_as_its_lease(wan: Ledger, clock: Clock) -> None:
    silent = sender(wan, "t1")
    silent.ask()
    clock.reap_for(50)
    other = sender(wan, "t2")
    assert other.ask().bytes_per_s == 0

    assert clock.reap_for(20) == ["t1"]

    assert other.ask().bytes_per_s == LIMIT
    assert silent.ask() == Share(0.0, lost=True)


def test_many_share_a_limit_that_is_not_shared_out_anew_for_each_call(wan: Ledger) -> None:
    senders = [sender(wan, f"t{n}", f"job-{n % 4}") for n in range(40)]

    def in_all() -> float:
        return sum(one.allowed or 0.0 for one in senders)

    def everybody_has_the_same() -> bool:
        for one in senders:
            one.ask()
            assert in_all() <= LIMIT + 10
        return all(one.allowed == pytest.approx(LIMIT / len(senders), rel=0.01) for one in senders)

    wait_until(everybody_has_the_same, "equal shares")

    for one in senders[20:]:
        wan.fail(one.claim.fence, FAILURE)
    del senders[20:]
    wait_until(everybody_has_the_same, "twice as much for half of them")


def test_the_share_of_a_task_that_ended_is_free_at_once(wan: Ledger) -> None:
    first, second = sender(wan, "t1"), sender(wan, "t2")
    first.ask()

    wan.fail(first.claim.fence, FAILURE)

    assert second.ask().bytes_per_s == LIMIT


def test_holders_of_a_former_epoch_keep_their_shares_for_a_lease(wan: Ledger, clock: Clock) -> None:
    old = sender(wan, "t1", wanted=6_000_000)
    old.ask()

    wan.open_epoch(2, TIMINGS)
    new = sender(wan, "t1")
    assert new.ask().bytes_per_s == LIMIT - 6_000_000
    clock.reap_for(50)
    assert wan.renew(new.claim.fence) == "ok"
    clock.reap_for(20)

    assert new.ask().bytes_per_s == LIMIT


def test_a_call_that_was_long_on_its_way_changes_nothing(wan: Ledger) -> None:
    first, second = sender(wan, "t1", wanted=1_000_000), sender(wan, "t2")
    settle(first, second)
    late = (first.claim.fence, WAN, "t1")
    first.wanted = None
    settle(first, second)

    wan.share(*late, serial=1, allowed=0.0, wanted=0.0)

    assert second.ask().bytes_per_s == LIMIT / 2


def test_a_scheduler_that_was_superseded_sets_no_limits(wan: Ledger, valkey: EmbeddedValkey) -> None:
    with Ledger(valkey.url, password=valkey.password) as newer:
        newer.open_epoch(2, TIMINGS)

    with pytest.raises(StaleEpochError):
        wan.set_traffic(ONE_RULE)


RATES = st.sampled_from([None, 0.0, 500_000.0, 3_000_000.0, 20_000_000.0])
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5), st.just(None)),
        st.tuples(st.just("ask"), st.integers(0, 5), st.just(None)),
        st.tuples(st.just("unheard"), st.integers(0, 5), st.just(None)),
        st.tuples(st.just("want"), st.integers(0, 5), RATES),
        st.tuples(st.just("end"), st.integers(0, 5), st.just(None)),
    ),
    min_size=5,
    max_size=40,
)
TWO_RULES = Traffic({"wan": LIMIT, "branch": 3_000_000}, {WAN: ["wan"], BRANCH: ["branch", "wan"]})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES, branches=st.sets(st.integers(0, 5)))
def test_whatever_is_asked_and_lost_no_limit_is_exceeded_and_all_of_it_is_used_in_the_end(
    valkey: EmbeddedValkey, moves: list[tuple[str, int, float | None]], branches: set[int]
) -> None:
    with redis.Redis(port=valkey.port, password=valkey.password) as raw:
        raw.flushall()
    with Ledger(valkey.url, password=valkey.password) as ledger:
        ledger.open_epoch(1, TIMINGS)
        ledger.register(registration(slots=100), PROXY)
        ledger.set_traffic(TWO_RULES)
        senders = {
            n: sender(ledger, f"t{n}", f"job-{n % 3}", flow=BRANCH if n in branches else WAN) for n in range(6)
        }

        def keeps_to_the_limits() -> None:
            everywhere = sum(one.allowed or 0.0 for one in senders.values())
            branch = sum(one.allowed or 0.0 for one in senders.values() if one.flow is BRANCH)
            assert everywhere <= LIMIT + 10
            assert branch <= TWO_RULES.limits["branch"] + 10

        for move, number, rate in moves:
            one = senders.get(number)
            if one is None:
                continue
            if move == "want":
                one.wanted = rate
            elif move == "end":
                ledger.fail(one.claim.fence, FAILURE)
                del senders[number]
            else:
                one.ask(heard=move == "ask")
            keeps_to_the_limits()

        for one in senders.values():
            one.wanted = None
        settle(*senders.values())
        keeps_to_the_limits()

        wan_jobs: dict[str, float] = {}
        for one in senders.values():
            if one.flow is WAN:
                wan_jobs[one.job] = wan_jobs.get(one.job, 0.0) + (one.allowed or 0.0)
        if wan_jobs:
            total = sum(one.allowed or 0.0 for one in senders.values())
            assert total == pytest.approx(LIMIT, rel=0.01)
        if wan_jobs and not any(one.flow is BRANCH for one in senders.values()):
            assert max(wan_jobs.values()) <= 1.1 * min(wan_jobs.values())
