"""The service when its surroundings fail: Redis gone or emptied, another scheduler, lost proxies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import LedgerFullError, StaleEpochError, TaskState, TaskVerdict
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.service import GATHER_S, Service
from scheduler.state.asking import ask_for_run, ask_for_upkeep, ask_to_cancel
from scheduler.state.errors import StateError, StateLockedError
from scheduler.state.models import (
    LedgerTask,
    Proxy,
    RequestKind,
    Run,
    RunState,
    ServiceMark,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World, vm


def _ask(world: World) -> str:
    with open_state(world.url).write() as session:
        return ask_for_run(session, "nightly", now=world.clock()).id


def _state(world: World, run_id: str) -> RunState:
    with Session(open_state(world.url).engine) as session:
        return session.get_one(Run, run_id).state


def _turn_until_announced(world: World, service: Service) -> None:
    """As far as disks that are announced and that nobody has claimed."""
    while not any(message.kind == "disk.backup" for message in world.lanes.messages):
        world.fleet.work()
        service.turn()


def test_a_scheduler_that_starts_again_joins_what_runs(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    run_id = _ask(world)
    _turn_until_announced(world, world.start())

    again = world.start()
    world.turn_until(again, lambda: _state(world, run_id).final)

    assert _state(world, run_id) is RunState.SUCCEEDED
    assert sorted(title for _, title in world.fleet.handled if title.startswith("disk.backup")) == [
        "disk.backup app01 scsi0:0",
        "disk.backup web01 scsi0:0",
        "disk.backup web01 scsi0:1",
    ]
    with Session(open_state(world.url).engine) as session:
        assert session.get_one(ServiceMark, 1).epoch == 1


def test_a_ledger_that_lost_everything_is_filled_again_under_a_new_epoch(
    world: World, valkey: EmbeddedValkey
) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    run_id = _ask(world)
    service = world.start()
    _turn_until_announced(world, service)

    with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
        client.flushall()
    stop = threading.Event()
    turns = 0

    def each_turn() -> None:
        nonlocal turns
        turns += 1
        world.fleet.join("proxy-1") if turns == 1 else world.fleet.work()
        if _state(world, run_id).final or turns > 200:
            stop.set()

    service.serve(stop, each_turn)

    assert _state(world, run_id) is RunState.SUCCEEDED
    with Session(open_state(world.url).engine) as session:
        assert session.get_one(ServiceMark, 1).epoch == 2


def test_a_scheduler_whose_ledger_another_one_took_over_ends_with_that_reason(
    new_world: Callable[[], World], world: World
) -> None:
    world.declare()
    first = world.start()
    other = World(
        world.url.replace("scheduler-", "other-"), world.ledger_url, world.password, world.fleet, world.lanes
    )
    other.start()

    with pytest.raises(StaleEpochError, match="another scheduler has taken over"):
        first.serve(threading.Event())
    other.opened[0].close()


def test_redis_being_away_is_waited_out(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    with EmbeddedValkey(tmp_path_factory.mktemp("mortal"), "secret") as server:
        world.ledger_url = server.url
        world.declare()
        service = world.start()
        stop = threading.Event()
        turns: list[int] = []

        def each_turn() -> None:
            turns.append(1)
            if len(turns) == 2:
                server.kill()
            elif len(turns) == 4:
                server.start()
            elif len(turns) == 6:
                stop.set()

        service.serve(stop, each_turn)

        assert len(turns) == 6
        service.turn()


def test_without_redis_it_does_not_start(world: World) -> None:
    world.ledger_url = "redis://127.0.0.1:1/0"
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1:1.*no answer"):
        world.start()


def test_with_a_wrong_password_it_does_not_start(world: World) -> None:
    world.password = "wrong"
    with pytest.raises(LedgerError, match="refuses the password"):
        world.start()


def test_what_only_the_ledger_knows_is_cancelled(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    _ask(world)
    service = world.start()
    _turn_until_announced(world, service)
    with open_state(world.url).write() as session:
        session.execute(delete(Run))

    again = world.start()
    again.turn()

    assert again.ledger.view().tasks == {}


def test_a_task_that_the_journal_forgot_while_it_ran_is_done_once(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()

    def forget() -> None:
        with open_state(world.url).write() as session:
            session.execute(delete(LedgerTask))

    world.fleet.when_handled["repository.list main"] = forget
    with open_state(world.url).write() as session:
        ask_for_upkeep(session, RequestKind.RESCAN, "main", now=world.clock())
    world.turn_until(service, lambda: bool(world.fleet.handled))
    for _ in range(4):
        service.turn()
        world.fleet.work()

    assert [title for _, title in world.fleet.handled] == ["repository.list main"]


def test_the_ledger_holds_what_is_in_flight_and_not_what_waits(world: World) -> None:
    world.fleet.inventory["ds1"] += tuple(vm(f"vm{number}", "scsi0:0") for number in range(5))
    world.declare()
    world.fleet.join("proxy-1")
    run_id = _ask(world)
    service = world.start()
    _turn_until_announced(world, service)

    view = service.ledger.view()
    assert [task.state for task in view.tasks.values()] == [TaskState.DISPATCHED] * 2
    with Session(open_state(world.url).engine) as session:
        reasons = waiting_reasons(session, view, world.clock())
    waits = "waiting: proxy proxy-1 is full (2 of 2 slots)"
    assert sorted(reasons.values())[2:] == [waits] * 6

    world.turn_until(service, lambda: _state(world, run_id).final)
    assert _state(world, run_id) is RunState.SUCCEEDED


def test_what_was_cancelled_does_not_run_again_when_the_ledger_loses_its_data(
    world: World, valkey: EmbeddedValkey
) -> None:
    world.declare()
    world.fleet.join("proxy-1", slots=1)
    run_id = _ask(world)
    service = world.start()
    _turn_until_announced(world, service)
    assert world.fleet.claim(world.lanes.messages.pop()) is not None
    with open_state(world.url).write() as session:
        ask_to_cancel(session, run_id)
    service.turn()
    assert [task.verdict for task in service.ledger.view().tasks.values()] == [TaskVerdict.CANCEL]

    with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
        client.flushall()
    service.attach()
    world.fleet.join("proxy-1", slots=1)
    world.turn_until(service, lambda: _state(world, run_id).final)

    assert _state(world, run_id) is RunState.CANCELLED
    assert not [title for _, title in world.fleet.handled if title.startswith("disk.backup")]


def test_every_task_that_waits_has_a_reason(world: World) -> None:
    world.declare()
    service = world.start()
    _ask(world)
    service.turn()

    with Session(open_state(world.url).engine) as session:
        reasons = waiting_reasons(session, service.ledger.view(), world.clock())
        assert set(reasons) == set(session.scalars(select(LedgerTask.id)))
        assert set(reasons.values()) == {"waiting: no proxy is running"}


def _runs(world: World) -> list[Run]:
    with Session(open_state(world.url).engine) as session:
        return list(session.scalars(select(Run)))


def test_an_emptied_ledger_that_can_not_be_opened_yet_is_waited_out(
    world: World, monkeypatch: pytest.MonkeyPatch, valkey: EmbeddedValkey
) -> None:
    world.declare()
    service = world.start()
    with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
        client.flushall()
    troubles: list[Exception] = [LedgerFullError("ledger", why="full"), StateLockedError("database", why="locked")]
    attach, waits = service.attach, _Pauses()

    def troubled() -> None:
        if troubles:
            raise troubles.pop(0)
        attach()

    monkeypatch.setattr(service, "attach", troubled)
    service.serve(waits, lambda: waits.set() if service.ledger.epoch() else None)

    assert troubles == []
    assert waits.paused_s == [0.5, 1.0]


def test_what_a_failed_commit_left_in_doubt_is_read_again_from_the_database(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    run_id = _ask(world)
    service = world.start(_AnswersLost(open_state(world.url, migrate=True).engine))
    stop = threading.Event()
    turns = 0

    def each_turn() -> None:
        nonlocal turns
        turns += 1
        world.fleet.work()
        if _state(world, run_id).final or turns > 200:
            stop.set()

    service.serve(stop, each_turn)

    assert _state(world, run_id) is RunState.SUCCEEDED
    service.turn()
    assert service.ledger.view().tasks == {}


def test_a_disabled_proxy_is_subscribed_to_nothing_that_others_share(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    service.turn()
    assert "repository.main" in service.ledger.view().proxies["proxy-1"].orders.lanes

    with open_state(world.url).write() as session:
        session.add(Proxy(name="proxy-1", enabled=False))
    world.clock.ahead_s += 10
    service.turn()

    assert service.ledger.view().proxies["proxy-1"].orders.lanes == ()


class _Pauses(threading.Event):
    """Notes how long it is waited for, and doesn't wait."""

    def __init__(self) -> None:
        super().__init__()
        self.paused_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None and timeout > GATHER_S:
            self.paused_s.append(timeout)
        return self.is_set()


class _AnswersLost(State):
    """A database whose every third commit succeeds without anybody hearing of it."""

    commits = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        self.commits += 1
        if self.commits % 3 == 0:
            raise StateError("database", why="the connection was lost")


def test_a_proxy_that_nobody_declared_is_forgotten_when_it_ends_in_order_and_may_come_back(world: World) -> None:
    world.declare()
    service = world.start()
    for name in ("declared", "replica-1"):
        world.fleet.join(name)
    with service.state.write() as session:
        session.add(Proxy(name="declared", site="primary"))
    world.turn_until(service, lambda: bool(service.ledger.view().proxies["replica-1"].orders.lanes))
    for name in ("declared", "replica-1"):
        service.ledger.depart(world.fleet.identities.pop(name))
    world.turn_until(service, lambda: service.ledger.view().proxies.keys() == {"declared"})

    world.fleet.join("replica-1")
    world.turn_until(service, lambda: bool(service.ledger.view().proxies["replica-1"].orders.lanes))


def test_the_service_forgets_what_ended_long_ago(world: World) -> None:
    world.declare()
    state = open_state(world.url)
    with state.write() as session:
        for age in (3000.0, 2000.0, 10.0):
            run = ask_for_run(session, "nightly", now=world.clock() - age)
            run.state, run.ended_at, run.retention_applied = RunState.FAILED, world.clock() - age, True
            session.flush()
    service = world.start()
    service.history_s = 1000.0

    service.turn()

    with state.read() as session:
        (left,) = session.scalars(select(Run)).all()
        assert left.created_at > world.clock() - 1000
