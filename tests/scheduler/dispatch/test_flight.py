"""When a proxy has nothing left to do, which somebody may be waiting for to reboot it."""

from __future__ import annotations

import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import Timings
from scheduler.dispatch.flight import at_rest
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Proxy
from tests.scheduler.conftest import World

SILENT = Timings(proxy_timeout_s=1e-9)
"""Whoever was heard of just now isn't any more."""


def test_a_proxy_that_is_not_heard_of_is_at_rest_when_its_tasks_are_not_held_any_more(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    with service.state.write() as session:
        ask_for_run(session, "nightly", now=world.clock())
    while not (announced := [one for one in world.lanes.messages if one.kind == "disk.backup"]):
        world.fleet.work()
        service.turn()
    held = world.fleet.claim(announced[0])
    assert held is not None
    with service.state.write() as session:
        session.add(Proxy(name="proxy-1", enabled=False))
    world.turn_until(service, lambda: not service.ledger.view().proxies["proxy-1"].orders.enabled)
    assert not at_rest(service.ledger.view(), "proxy-1")

    service.ledger.join_epoch(1, SILENT)
    view = service.ledger.view()
    assert (view.proxies["proxy-1"].live, at_rest(view, "proxy-1")) == (False, False)

    service.ledger.release(held[1].fence)
    assert at_rest(service.ledger.view(), "proxy-1")


def test_while_a_ledger_that_lost_its_data_is_quiet_nobody_is_at_rest(world: World, valkey: EmbeddedValkey) -> None:
    world.declare()
    service = world.start()
    assert at_rest(service.ledger.view(), "proxy-1")

    with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
        client.flushall()
    assert not at_rest(service.ledger.view(), "proxy-1")
    service.ledger.open_epoch(2, Timings(lease_s=600.0))
    world.fleet.join("proxy-1")
    assert not at_rest(service.ledger.view(), "proxy-1")
