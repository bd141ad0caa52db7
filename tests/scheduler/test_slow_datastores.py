"""A datastore that takes long to answer: what waits says so, and what is being read is slowed down."""

from __future__ import annotations

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import Claim
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.runs.latencies import record_latencies
from scheduler.service import VIEW_S, Service
from scheduler.state.asking import ask_for_run
from tests.scheduler.conftest import World


def _two_disks_running(world: World, service: Service) -> list[Claim]:
    claims: list[Claim] = []
    for _ in range(50):
        service.turn()
        announced = [one for one in world.lanes.messages if one.kind is TaskKind.DISK_BACKUP]
        for message in announced:
            world.lanes.messages.remove(message)
            claimed = world.fleet.claim(message)
            assert claimed is not None
            claims.append(claimed[1])
        if len(claims) == 2:
            return claims
        world.fleet.work()
    raise AssertionError("the disks did not begin")


def test_disks_of_a_slow_datastore_wait_and_are_paused_until_it_answers_again(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1", slots=2)
    service = world.start()
    with service.state.write() as session:
        ask_for_run(session, "nightly", now=world.clock())
    first, second = _two_disks_running(world, service)

    told = {}
    for took_ms in (45.0, 25.0, 5.0):
        record_latencies(service.state, {"ds1": took_ms})
        world.clock.ahead_s += VIEW_S
        service.turn()
        told[took_ms] = sorted(service.ledger.renew(claim.fence) for claim in (first, second))
        with service.state.read() as session:
            (reason,) = waiting_reasons(session, service.ledger.view(), world.clock()).values()
        slow = f"waiting: datastore ds1 answers in {took_ms:.0f} ms, and gets nothing more from 20 ms on"
        assert (reason == slow) is (took_ms >= 20)

    assert told == {45.0: ["ok", "pause"], 25.0: ["ok", "pause"], 5.0: ["ok", "ok"]}
