"""Jobs that start by their schedules: at their time, made up for once, whatever the clock or the disk did."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.runs.schedules import Timetable
from scheduler.state.errors import StateFullError
from scheduler.state.models import (
    Job,
    Repository,
    Run,
    RunTrigger,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World


def _runs(world: World) -> list[Run]:
    with Session(open_state(world.url).engine) as session:
        return list(session.scalars(select(Run)))


def test_a_schedule_starts_a_run_when_it_is_due_and_makes_up_for_missed_ones_once(world: World) -> None:
    world.declare(cron="0 22 * * *", timezone="Europe/Berlin")
    service = world.start()
    service.turn()
    assert _runs(world) == []

    world.clock.ahead_s = 5 * 86400
    service.turn()
    service.turn()

    assert [run.trigger for run in _runs(world)] == [RunTrigger.SCHEDULE]


def test_a_scheduler_that_was_away_makes_up_for_its_missed_start(world: World) -> None:
    world.declare(cron="0 22 * * *", scheduled_after=world.clock() - 3 * 86400)

    world.start().turn()

    assert len(_runs(world)) == 1


@pytest.mark.parametrize("restarted", [False, True], ids=["while it serves", "before it starts again"])
def test_a_clock_that_was_a_year_ahead_and_is_set_right_keeps_no_schedule_from_starting(
    world: World, *, restarted: bool
) -> None:
    world.declare(cron="0 22 * * *", timezone="Europe/Berlin", retry_count=0)
    with open_state(world.url).write() as session:
        repository = session.get_one(Repository, "main")
        repository.collect_cron, repository.prove_days = "0 12 * * 0", 30
    world.fleet.join("proxy-1")
    service = world.start()
    service.turn()
    world.clock.ahead_s = 365 * 86400.0
    world.turn_until(service, lambda: len(_runs(world)) == 1 and _runs(world)[0].state.final)
    world.serve_turns(service, 2)

    world.clock.ahead_s = 0.0
    service = world.start() if restarted else service
    world.serve_turns(service, 2)
    with open_state(world.url).read() as session:
        repository = session.get_one(Repository, "main")
        assert max(repository.collect_at or 1e12, repository.prove_at or 1e12) < world.clock() + 8 * 86400
    world.clock.ahead_s = 86400.0
    world.serve_turns(service, 2)

    assert len(_runs(world)) == 2


def test_a_start_that_the_database_had_no_room_for_is_made_as_soon_as_it_has(world: World) -> None:
    world.declare(cron="0 22 * * *", timezone="Europe/Berlin")
    state = _Full(open_state(world.url, migrate=True).engine)
    service = world.start(state)
    service.turn()

    stop = threading.Event()
    turns = 0

    def each_turn() -> None:
        nonlocal turns
        turns += 1
        state.full = turns < 3
        if turns == 5:
            stop.set()

    world.clock.ahead_s = 5 * 86400
    service.serve(stop, each_turn)

    assert [run.trigger for run in _runs(world)] == [RunTrigger.SCHEDULE]


def test_a_schedule_that_is_changed_or_enabled_later_makes_up_for_nothing(world: World) -> None:
    world.declare(cron="30 3 * * *", scheduled_after=world.clock() - 3 * 86400, enabled=False)
    service = world.start()
    service.turn()
    with open_state(world.url).write() as session:
        session.get_one(Job, "nightly").enabled = True
    service.turn()

    assert _runs(world) == []


def test_a_schedule_that_is_not_valid_is_looked_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.declare(cron="every day")
    service = world.start()
    for _ in range(3):
        service.turn()

    assert len([one for one in caplog.records if "never started by its schedule" in one.message]) == 1
    with Session(open_state(world.url).engine) as session:
        assert Timetable().due_jobs(session, world.clock()) == ["nightly"]


class _Full(State):
    """A database that has no room while it is `full`: nothing that is written then is kept."""

    full = False

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            if self.full:
                raise StateFullError("database", why="its file system is full")
