"""Which limits the ledger is told of: where proxies and repositories stand, and what holds between them now."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.outcome import ProxyRegistration
from proxy_worker.contract.replication_outcome import ReplicationOffer
from proxy_worker.ledger import Flow, Ledger, ProxyIdentity
from scheduler.dispatch.traffic import DeclaredTraffic, TrafficOrders
from scheduler.fleet.models import Fleet
from scheduler.fleet.stored import apply_fleet
from scheduler.state.access import DatabaseAccess
from scheduler.state.store import open_state
from tests.ledger.calls import held, registration
from tests.scheduler.conftest import World
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


def test_rules_hold_between_proxies_that_replicate(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    rules = declared(tmp_path)
    with fleet_of(valkey, other="10.1.0.8", deaf="10.9.0.8") as ledger:
        for name, address in (("near", "10.1.0.7"), ("far", "10.9.0.7")):
            offer = registration(name).model_copy(
                update={"address": address, "replication": ReplicationOffer(host=address)}
            )
            ledger.register(offer, ProxyIdentity(name, "instance", life="life", lock="lock"))
        flows = rules.situation(ledger.view(), EVENING).traffic().flows

    between = {(flow.proxy, flow.repository) for flow in flows if flow.kind is TrafficKind.REPLICATION}
    assert between == {("near", "far"), ("far", "near")}


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
