"""Restore points given up after runs, pinned and removed by hand; repositories collected when it is time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.outcome import TaskFailure, TaskResult
from proxy_worker.contract.specification import PointDelete, RepositoryCommit
from proxy_worker.ledger import RenewAnswer
from scheduler.planning.retention import Retention
from scheduler.runs.retention import verdicts
from scheduler.state.asking import ask_for_run, ask_for_upkeep, ask_to_delete, pin
from scheduler.state.errors import PointLeavingError, PointPinnedError
from scheduler.state.models import Job, LedgerTask, Point, Repository, Request, RequestKind, Run, VmRun, WorkState
from tests.scheduler.conftest import World
from tests.simulators.proxies import SimulatedRepository

WEB = "id-web01"


def back_up(world: World, turn: Callable[[Callable[[], bool]], None]) -> str:
    """One run, from request until nothing is left to do, an hour later; its id."""
    world.clock.ahead_s += 3600
    with world.writing() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id

    def at_rest() -> bool:
        with world.writing() as session:
            run = session.get_one(Run, run_id)
            return run.state.final and run.retention_applied and not session.scalars(select(LedgerTask)).all()

    turn(at_rest)
    return run_id


def points(world: World) -> list[str]:
    """Those of web01 that the catalogue knows, the oldest first."""
    with world.writing() as session:
        return [row.point for row in session.scalars(select(Point).order_by(Point.created_at)) if row.vm_id == WEB]


def in_repository(world: World) -> set[str]:
    return {run for vm_id, run in world.fleet.repository.points if vm_id == WEB}


@pytest.fixture
def turn(world: World) -> Callable[[Callable[[], bool]], None]:
    world.declare(vms=("web01",), retention=Retention(points=2))
    world.fleet.join("proxy-1")
    service = world.start()
    return lambda reached: world.turn_until(service, reached)


def test_after_a_run_points_beyond_the_policy_go(world: World, turn: Callable[[Callable[[], bool]], None]) -> None:
    for _ in range(4):
        back_up(world, turn)

    assert len(points(world)) == 2
    assert in_repository(world) == set(points(world))
    with world.writing() as session:
        asked = session.scalars(select(Request).where(Request.kind == RequestKind.DELETE_POINT)).all()
        assert [request.state for request in asked] == [WorkState.SUCCEEDED] * 2
        assert asked[0].reason == "older than what is kept: the newest 2"


class _YearsBehind(SimulatedRepository):
    """What proxies put into it is dated by a clock that has lost its battery."""

    def commit(self, body: RepositoryCommit) -> TaskResult | TaskFailure:
        return super().commit(body.model_copy(update={"started_at": 0.0}))


def test_what_a_run_has_just_made_does_not_go_for_a_clock_that_is_years_behind(
    world: World, turn: Callable[[Callable[[], bool]], None]
) -> None:
    back_up(world, turn)
    right = back_up(world, turn)
    world.fleet.repository = _YearsBehind(world.fleet.repository.points)

    late = back_up(world, turn)

    with world.writing() as session:
        made = session.scalars(select(VmRun.repository_run).where(VmRun.run_id.in_((right, late)))).all()
    assert set(made) < set(points(world))


def test_what_is_foreseen_is_what_happens(world: World, turn: Callable[[Callable[[], bool]], None]) -> None:
    back_up(world, turn)
    back_up(world, turn)
    with world.writing() as session:
        found = verdicts(session, session.get_one(Job, "nightly"), WEB, now=world.clock(), next_run=True)
        foreseen = {verdict.point.point for verdict in found if not verdict.kept}
    before = set(points(world))

    back_up(world, turn)

    assert before - set(points(world)) == foreseen
    assert len(foreseen) == 1


def test_a_pinned_point_stays_until_it_is_unpinned(
    world: World, turn: Callable[[Callable[[], bool]], None]
) -> None:
    back_up(world, turn)
    [oldest] = points(world)
    with world.writing() as session:
        pin(session, session.get_one(Point, ("main", WEB, oldest)), pinned=True)
    for _ in range(3):
        back_up(world, turn)
    assert points(world)[0] == oldest
    with world.writing() as session:
        row = session.get_one(Point, ("main", WEB, oldest))
        with pytest.raises(PointPinnedError):
            ask_to_delete(session, row, now=world.clock())
        pin(session, row, pinned=False)

    back_up(world, turn)
    assert oldest not in points(world)


def test_another_jobs_points_stay(world: World, turn: Callable[[Callable[[], bool]], None]) -> None:
    back_up(world, turn)
    [foreign] = points(world)
    with world.writing() as session:
        session.get_one(Point, ("main", WEB, foreign)).job = "weekly"
    for _ in range(3):
        back_up(world, turn)

    assert foreign in points(world)
    assert len(points(world)) == 3


def test_a_removal_that_failed_is_made_up_for_after_the_next_run(
    world: World, turn: Callable[[Callable[[], bool]], None]
) -> None:
    world.fleet.answers[PointDelete] = lambda _: TaskFailure.of(SourceError("point", why="the store is away"))
    for _ in range(3):
        back_up(world, turn)
    assert len(points(world)) == 3
    del world.fleet.answers[PointDelete]

    back_up(world, turn)
    assert len(points(world)) == 2


def test_a_point_is_removed_by_hand_once(world: World, turn: Callable[[Callable[[], bool]], None]) -> None:
    back_up(world, turn)
    [point] = points(world)
    with world.writing() as session:
        row = session.get_one(Point, ("main", WEB, point))
        first = ask_to_delete(session, row, now=world.clock())
        session.flush()
        assert ask_to_delete(session, row, now=world.clock()) is first
        with pytest.raises(PointLeavingError):
            pin(session, row, pinned=True)

    turn(lambda: not points(world))
    assert in_repository(world) == set()


def test_a_repository_is_collected_when_it_is_time(
    world: World, turn: Callable[[Callable[[], bool]], None]
) -> None:
    with world.writing() as session:
        session.get_one(Repository, "main").collect_cron = "0 * * * *"

    def collected(times: int) -> bool:
        with world.writing() as session:
            asked = session.scalars(select(Request).where(Request.kind == RequestKind.COLLECT)).all()
            return [request.state for request in asked] == [WorkState.SUCCEEDED] * times

    turn(lambda: _marked(world))
    assert collected(0)
    world.clock.ahead_s += 3600
    turn(lambda: collected(1))
    world.clock.ahead_s += 3600
    turn(lambda: collected(2))


def _marked(world: World) -> bool:
    with world.writing() as session:
        return session.get_one(Repository, "main").collect_at is not None


def test_a_collection_ends_with_its_hours(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    with world.writing() as session:
        session.get_one(Repository, "main").collect_hours = 2
        asked = ask_for_upkeep(session, RequestKind.COLLECT, "main", now=world.clock()).id
    service = world.start()
    while not world.lanes.messages:
        service.turn()
    claimed = world.fleet.claim(world.lanes.messages.pop())
    assert claimed is not None
    fence = claimed[1].fence

    service.turn()
    assert world.fleet.ledger.renew(fence, None, None) is RenewAnswer.OK
    world.clock.ahead_s += 2 * 3600
    service.turn()
    assert world.fleet.ledger.renew(fence, None, None) is RenewAnswer.CANCEL
    world.fleet.ledger.release(fence, None, "it was told to stop")
    service.turn()

    with world.writing() as session:
        request = session.get_one(Request, asked)
        assert (request.state, request.summary) == (
            WorkState.CANCELLED,
            "its hours were over; the next one goes on",
        )
