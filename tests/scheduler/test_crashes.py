"""The scheduler killed after each of its commits, one after the other, and started again: the end is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from scheduler.state.asking import ask_for_run
from scheduler.state.models import DiskTask, LedgerTask, Point, Run, VmRun
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World


class Killed(BaseException):
    """Stands for the end of the process."""


class MortalState(State):
    """A database whose user dies right after its n-th commit."""

    def __init__(self, engine: Engine, commits_left: int) -> None:
        super().__init__(engine)
        self.commits_left = commits_left

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        self.commits_left -= 1
        if self.commits_left == 0:
            raise Killed


def _mortal(world: World, commits: int) -> MortalState:
    return MortalState(open_state(world.url, migrate=True).engine, commits)


def _prepare(world: World) -> str:
    """A run with a disk that succeeds on its second try, one that never does, and a name that nobody has."""
    world.declare(vms=("*", "nobody"), retry_count=1)
    world.fleet.join("proxy-1")
    world.fleet.failures = {"disk.backup app01 scsi0:0": 1, "disk.backup web01 scsi0:1": 99}
    state = open_state(world.url)
    with state.write() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id
    state.close()
    return run_id


def _ended(world: World, run_id: str) -> bool:
    with Session(open_state(world.url).engine) as session:
        return session.get_one(Run, run_id).state.final and session.scalar(select(LedgerTask.id).limit(1)) is None


def _end(world: World) -> object:
    """All that matters of how it ended, without names that are random."""
    with Session(open_state(world.url).engine) as session:
        return (
            [(run.state, run.reason) for run in session.scalars(select(Run))],
            sorted((one.name, one.state, one.reason) for one in session.scalars(select(VmRun))),
            sorted((one.disk_key, one.state, one.tries) for one in session.scalars(select(DiskTask))),
            sorted(point.vm_name for point in session.scalars(select(Point))),
            sorted(summary.vm.name for summary in world.fleet.repository.points.values()),
            sorted(vm_id for vm_id, _ in world.fleet.repository.tombstones),
            [point.point for point in session.scalars(select(Point))]
            == [run for _, run in world.fleet.repository.points],
        )


def _run(world: World, state: MortalState) -> object:
    """Run to the end, in a second life where the first one ends too soon."""
    run_id = _prepare(world)
    try:
        world.turn_until(world.start(state), lambda: _ended(world, run_id))
    except Killed:
        world.turn_until(world.start(), lambda: _ended(world, run_id))
    return _end(world)


def test_killed_after_any_commit_a_run_ends_as_if_nothing_had_happened(new_world: Callable[[], World]) -> None:
    immortal = new_world()
    state = _mortal(immortal, 0)
    expected = _run(immortal, state)
    commits = -state.commits_left
    assert commits > 8

    for deadly in range(1, commits + 1):
        world = new_world()
        assert _run(world, _mortal(world, deadly)) == expected, f"killed after commit {deadly} of {commits}"
