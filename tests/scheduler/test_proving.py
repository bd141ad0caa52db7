"""Repositories proven when it is time, and what that says of restore points."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from proxy_worker.contract.outcome import TaskResult
from proxy_worker.contract.specification import RepositoryProve
from scheduler.fleet.editing import withdraw
from scheduler.state.asking import ask_for_run, ask_for_upkeep
from scheduler.state.models import LedgerTask, Point, Repository, Request, RequestKind, Run, WorkState
from scheduler.state.proven import damaged_points, proof_figures
from tests.scheduler.conftest import World

Turn = Callable[[Callable[[], bool]], None]


@pytest.fixture
def turn(world: World) -> Turn:
    """With one restore point each of two VMs, and a second repository that is linked."""
    world.declare(vms=("web01", "app01"))
    world.fleet.join("proxy-1")
    with world.writing() as session:
        session.add(Repository(name="vault", location="/vault", site="primary", prove_days=0))
        session.flush()
        session.get_one(Repository, "main").linked = ("vault",)
    service = world.start()
    with world.writing() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id

    def at_rest() -> bool:
        with world.writing() as session:
            return session.get_one(Run, run_id).state.final and not session.scalars(select(LedgerTask)).all()

    world.turn_until(service, at_rest)
    return lambda reached: world.turn_until(service, reached)


def declare(world: World, **changes: object) -> None:
    with world.writing() as session:
        for key, value in changes.items():
            setattr(session.get_one(Repository, "main"), key, value)


def states(world: World, kind: RequestKind) -> list[WorkState]:
    with world.writing() as session:
        return [request.state for request in session.scalars(select(Request).where(Request.kind == kind))]


def planned(world: World) -> bool:
    with world.writing() as session:
        return session.get_one(Repository, "main").prove_at is not None


def test_a_piece_is_proven_when_it_is_time_and_what_was_mended_collected(world: World, turn: Turn) -> None:
    specified: list[RepositoryProve] = []

    def prove(body: RepositoryProve) -> TaskResult:
        specified.append(body)
        return world.fleet.repository.prove(body)

    world.fleet.answers[RepositoryProve] = prove
    declare(world, prove_days=10, prove_cron="0 * * * *", prove_mib_per_s=2, prove_hours=3)
    turn(lambda: planned(world))
    assert states(world, RequestKind.PROVE) == []

    world.clock.ahead_s += 3600
    turn(lambda: states(world, RequestKind.PROVE) == [WorkState.SUCCEEDED])
    turn(lambda: states(world, RequestKind.COLLECT) == [WorkState.SUCCEEDED])

    [body] = specified
    assert (body.period_s, body.most_s, body.bytes_per_s) == (10 * 86_400, 3 * 3600, 2 * 1024 * 1024)
    assert [linked.name for linked in body.linked] == ["vault"]


def test_a_proof_of_a_repository_that_is_removed_meanwhile_ends_and_has_nothing_collected(
    world: World, turn: Turn
) -> None:
    def remove() -> None:
        with world.writing() as session:
            withdraw(session, "job", "nightly")
            withdraw(session, "repository", "main")

    world.fleet.when_handled["repository.prove main"] = remove
    with world.writing() as session:
        ask_for_upkeep(session, RequestKind.PROVE, "main", now=world.clock())

    turn(lambda: states(world, RequestKind.PROVE) == [WorkState.SUCCEEDED])

    assert states(world, RequestKind.COLLECT) == []


def test_each_point_says_when_it_was_proven(world: World, turn: Turn) -> None:
    with world.writing() as session:
        assert proof_figures(session, "main").unproven == 2
    declare(world, prove_days=30, prove_cron="0 * * * *")
    turn(lambda: planned(world))
    world.clock.ahead_s += 3600
    turn(lambda: states(world, RequestKind.PROVE) == [WorkState.SUCCEEDED])

    with world.writing() as session:
        figures = proof_figures(session, "main")
        assert (figures.points, figures.unproven, figures.damaged) == (2, 1, 1)
        assert figures.oldest_proof_at == 1_800_000_000
        [damaged] = damaged_points(session)
        assert damaged.damaged
        assert {point.proven_at for point in session.scalars(select(Point))} == {None, 1_800_000_000}


def test_one_that_is_not_to_be_proven_is_left_alone(world: World, turn: Turn) -> None:
    declare(world, prove_days=0, prove_cron="0 * * * *", collect_cron="0 * * * *")
    for _ in range(2):
        world.clock.ahead_s += 3600
        turn(lambda: WorkState.RUNNING not in states(world, RequestKind.COLLECT))

    assert states(world, RequestKind.PROVE) == []


@pytest.mark.parametrize("samples", [True, False])
def test_without_a_read_key_samples_wait_and_checksums_do_not(world: World, samples: bool) -> None:
    world.declare(vms=("web01",))
    world.fleet.join("proxy-1", credentials={"main": "write"})
    declare(world, prove_days=30, prove_cron="0 * * * *", prove_samples=samples)
    service = world.start()
    world.turn_until(service, lambda: planned(world))
    world.clock.ahead_s += 3600
    world.turn_until(service, lambda: bool(states(world, RequestKind.PROVE)))
    with world.writing() as session:
        ask_for_upkeep(session, RequestKind.RESCAN, "main", now=world.clock())
    waited_for = RequestKind.RESCAN if samples else RequestKind.PROVE
    world.turn_until(service, lambda: states(world, waited_for) == [WorkState.SUCCEEDED])

    assert states(world, RequestKind.PROVE) == [WorkState.RUNNING if samples else WorkState.SUCCEEDED]
