"""Whether a proxy that is about to be stopped has ended its tasks."""

from __future__ import annotations

from proxy_worker.ledger import Timings
from scheduler.deployment.fleet_watch import FleetWatch
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Proxy
from tests.scheduler.conftest import World

SILENT = Timings(proxy_timeout_s=1e-9)
"""Whoever was heard of just now isn't any more."""


def test_a_proxy_that_falls_silent_has_not_ended_its_tasks(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    with service.state.write() as session:
        session.add(Proxy(name="proxy-1"))
        ask_for_run(session, "nightly", now=world.clock())
    while not (announced := [one for one in world.lanes.messages if one.kind == "disk.backup"]):
        world.fleet.work()
        service.turn()
    assert world.fleet.claim(announced[0])
    watch = FleetWatch(service.ledger, service.state)
    watch.set_enabled("proxy-1", enabled=False)
    said: list[str] = []

    def fall_silent(text: str) -> None:
        said.append(text)
        service.ledger.join_epoch(1, SILENT)

    assert not watch.drained("proxy-1", 60.0, fall_silent)
    assert len(said) == 1
