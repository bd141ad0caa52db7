"""Which limits the ledger is told of: where proxies and repositories stand, and what holds between them now."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TaskKind, TrafficKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.ledger import Flow, Ledger, ProxyIdentity
from scheduler.dispatch.traffic import DeclaredTraffic, TrafficOrders
from scheduler.fleet.models import Fleet
from scheduler.fleet.stored import apply_fleet
from scheduler.state.access import DatabaseAccess
from scheduler.state.asking import ask_for_run
from scheduler.state.models import DeclaredTrafficRule, Run, RunState
from scheduler.state.store import open_state
from tests.ledger.calls import held, registration
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import IN_PLACE, prepare
from tests.servers import own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]

MONDAY_NOON = 1_763_985_600.0
"""2025-11-24 12:00 UTC."""
EVENING = MONDAY_NOON + 8 * 3600
RULES = """{
  "site": [{"name": "primary"}],
  "repository": [
    {"name": "remote", "location": "/backup/remote", "site": "primary", "host": "10.9.0.5"},
    {"name": "cloud", "location": "s3://b/p?endpoint=https://10.9.0.6:8333", "site": "primary"},
    {"name": "near", "location": "/backup/near", "site": "primary"}],
  "traffic_rule": [
    {"name": "wan", "source": ["10.1.0.0/16"], "target": ["10.9.0.0/24"], "limit": "80 Mbit/s"},
    {"name": "office", "source": ["10.1.0.7"], "target": ["10.9.0.5"], "limit": "1 MB/s", "exempt": [],
     "window": {"hours": ["Mon-Fri 8:00-18:00"]}},
    {"name": "unused", "source": ["10.7.0.0/16"], "target": ["10.8.0.0/24"], "limit": "1 MB/s"}]}"""


def declared(tmp_path: Path) -> DeclaredTraffic:
    with closing(open_state(DatabaseAccess(f"sqlite:///{tmp_path / 'scheduler.db'}"), migrate=True)) as state:
        with state.write() as session:
            apply_fleet(session, Fleet.model_validate_json(RULES))
        with state.read() as session:
            return DeclaredTraffic.load(session)


def fleet_of(valkey: EmbeddedValkey, **addresses: str | None) -> Ledger:
    ledger = Ledger(valkey.url, password=valkey.password)
    ledger.open_epoch(1)
    for name, address in addresses.items():
        offer: ProxyRegistration = registration(name).model_copy(update={"address": address})
        ledger.register(offer, ProxyIdentity(name, "instance", life="life", lock="lock"))
    return ledger


def test_rules_hold_for_proxies_and_repositories_whose_places_are_known(
    tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    with fleet_of(valkey, near="10.1.0.7", other="10.1.0.8", away="10.3.0.1", unknown=None) as ledger:
        traffic = declared(tmp_path).situation(ledger.view(), MONDAY_NOON).traffic()

    assert traffic.limits == {"wan": 10_000_000, "office": 1_000_000}
    limited = {
        (flow.repository, flow.proxy): rules
        for flow, rules in traffic.flows.items()
        if flow.kind is TrafficKind.BACKUP
    }
    assert limited == {
        ("remote", "near"): ("office", "wan"),
        ("cloud", "near"): ("wan",),
        ("remote", "other"): ("wan",),
        ("cloud", "other"): ("wan",),
    }
    restores = {flow: rules for flow, rules in traffic.flows.items() if flow.kind is TrafficKind.RESTORE}
    assert restores == {Flow(TrafficKind.RESTORE, "remote", "near"): ("office",)}
    assert traffic.flows[Flow(TrafficKind.COPY, "remote", "near")] == ("office", "wan")


def test_rules_hold_between_proxies_that_replicate_a_disk_just_now(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    rules = declared(tmp_path)
    pairs = [("near", "far"), ("near", "other"), ("near", "unknown")]
    addresses = {"near": "10.1.0.7", "other": "10.1.0.8", "far": "10.9.0.7", "deaf": "10.9.0.8", "unknown": None}
    with fleet_of(valkey, **addresses) as ledger:
        flows = rules.situation(ledger.view(), EVENING).traffic(pairs).flows

    between = {flow: names for flow, names in flows.items() if flow.kind is TrafficKind.REPLICATION}
    assert between == {Flow(TrafficKind.REPLICATION, "far", "near"): ("wan",)}


def test_a_thousand_proxies_have_a_flow_for_each_pair_of_them(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    names = [f"proxy-{number}" for number in range(1000)]
    places = tuple((name, f"10.{9 if number % 2 else 1}.0.{number % 250}") for number, name in enumerate(names))
    with fleet_of(valkey) as ledger:
        nobody = declared(tmp_path).situation(ledger.view(), EVENING)
    situation = replace(nobody, hosts=(), addresses=places)
    pairs = list(zip(names[::2], names[1::2], strict=True))

    assert len(situation.traffic().flows) == 0
    assert len(situation.traffic(pairs).flows) == 500


def test_a_flow_is_limited_before_its_source_is_announced_and_until_both_have_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(world)
    world.fleet.join("near", datastores={"ds1": IN_PLACE}, receives=True, address="10.1.0.7")
    world.fleet.join("far", site="remote", datastores={"ds2": IN_PLACE}, receives=True, address="10.9.0.7")
    publish = world.lanes.publish
    told: list[set[str]] = []

    with (
        redis.Redis.from_url(world.ledger_url, password=world.password, decode_responses=True) as raw,
        closing(open_state(DatabaseAccess(world.url))) as state,
    ):

        def limited() -> set[str]:
            return {field for field in raw.hkeys("{pf}:traffic") if field.startswith("flow:replication:")}

        def look(*, kind: TaskKind, title: str, lane: str, task_id: str, number: int) -> None:
            if kind is TaskKind.DISK_REPLICATE:
                told.append(limited())
            publish(kind=kind, title=title, lane=lane, task_id=task_id, number=number)

        def over() -> bool:
            with state.read() as session:
                return session.get_one(Run, run_id).state is RunState.SUCCEEDED and not limited()

        monkeypatch.setattr(world.lanes, "publish", look)
        with state.write() as session:
            wan = Fleet.model_validate_json(RULES).traffic_rule[0]
            session.add(DeclaredTrafficRule(**wan.model_dump()))
            run_id = ask_for_run(session, "away", now=world.clock()).id
        world.turn_until(world.start(), over)

    assert told == [{"flow:replication:far:near"}] * 2


def test_only_what_differs_is_told(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    rules = declared(tmp_path)
    with (
        fleet_of(valkey, near="10.1.0.7", far="10.9.0.7", farther="10.9.0.8") as ledger,
        redis.Redis.from_url(valkey.url, password=valkey.password, decode_responses=True) as raw,
    ):
        orders, view = TrafficOrders(ledger), ledger.view()
        orders.give(view, rules, EVENING, frozenset({("near", "far")}))
        raw.hset("{pf}:traffic", "by", "another")
        before = raw.hgetall("{pf}:traffic")
        orders.give(view, rules, EVENING, frozenset({("near", "farther")}))

        after = raw.hgetall("{pf}:traffic")
        assert dict(before.items() - after.items()) == {"flow:replication:far:near": '["wan"]'}
        assert dict(after.items() - before.items()) == {"flow:replication:farther:near": '["wan"]'}


def test_the_ledger_hears_of_a_window_that_closes_and_of_everything_again_once_it_is_another(
    tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    rules = declared(tmp_path)
    flow = Flow(TrafficKind.BACKUP, "remote", "proxy-1")
    with fleet_of(valkey, **{"proxy-1": "10.1.0.7"}) as ledger:
        orders = TrafficOrders(ledger)
        fence = held(ledger).fence

        def allowed(serial: int) -> float | None:
            return ledger.share(fence, flow, "nightly", serial=serial, allowed=0, wanted=None).bytes_per_s

        orders.give(ledger.view(), rules, MONDAY_NOON)
        assert allowed(1) == 1_000_000
        orders.give(ledger.view(), rules, EVENING)
        assert allowed(2) == 10_000_000

        orders.give(ledger.view(), DeclaredTraffic((), {}), EVENING)
        assert allowed(3) is None
        orders.forget()
        orders.give(ledger.view(), rules, EVENING)
        assert allowed(4) == 10_000_000


def test_a_scheduler_that_serves_tells_its_ledger_in_each_of_its_lives(world: World) -> None:
    world.declare()
    with closing(open_state(DatabaseAccess(world.url))) as state, state.write() as session:
        apply_fleet(session, Fleet.model_validate_json(RULES))
    offer = registration("proxy-1").model_copy(update={"address": "10.1.0.8"})
    world.fleet.ledger.register(offer, ProxyIdentity("proxy-1", "instance", life="life", lock="lock"))

    with redis.Redis.from_url(world.ledger_url, password=world.password, decode_responses=True) as raw:
        for _ in range(2):
            world.start().turn()
            told = raw.hgetall("{pf}:traffic")
            raw.delete("{pf}:traffic")
            assert told["limit:wan"] == "10000000"
            assert told["flow:backup:remote:proxy-1"] == '["wan"]'
