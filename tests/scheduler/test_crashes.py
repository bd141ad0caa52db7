"""The scheduler killed after each of its commits, one after the other, and started again: the end is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import PointDisk, PointSummary
from proxy_worker.contract.subjects import VmIdentity
from scheduler.state.asking import ask_for_restore, ask_for_run, ask_for_upkeep
from scheduler.state.models import (
    DiskTask,
    LedgerTask,
    Point,
    Request,
    RequestKind,
    Restore,
    Run,
    VmRun,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World

Prepare = Callable[[World, Session], None]


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


def _prepare_failures(world: World, session: Session) -> None:
    """A disk that succeeds on its second try, one that never does, and a name that nobody has."""
    world.fleet.failures = {"disk.backup app01 scsi0:0": 1, "disk.backup web01 scsi0:1": 99}
    ask_for_run(session, "nightly", now=world.clock())


def _prepare_cancel(world: World, session: Session) -> None:
    """A run that is cancelled while a disk waits for its next try."""
    world.fleet.failures = {"disk.backup web01 scsi0:1": 99}
    run_id = ask_for_run(session, "nightly", now=world.clock()).id
    world.fleet.when_handled["disk.backup web01 scsi0:1"] = lambda: _cancel(world, run_id)


def _prepare_lost_commit(world: World, session: Session) -> None:
    """A commit that is done and reported as failed, twice."""
    world.fleet.lost_answers = {"repository.commit app01"}
    ask_for_run(session, "nightly", now=world.clock())


def _prepare_requests(world: World, session: Session) -> None:
    """A restore, a rescan and a check of what was backed up before."""
    disks = (PointDisk(key="scsi0:0", size_bytes=1, stored_bytes=1),)
    point = PointSummary(vm=VmIdentity.of_name("old"), run="old-1", job="", created_at=1.0, disks=disks)
    world.fleet.repository.points["old", "old-1"] = point
    session.add(
        Point(repository="main", vm_id="old", point="p", vm_name="old", job="", created_at=2.0, disks=disks)
    )
    session.flush()
    ask_for_restore(session, vm="old", disk_key="scsi0:0", proxy="proxy-1", target_path="/x", now=world.clock())
    ask_for_upkeep(session, RequestKind.RESCAN, "main", now=world.clock())
    ask_for_upkeep(session, RequestKind.CHECK, "main", now=world.clock())


def _cancel(world: World, run_id: str) -> None:
    with open_state(world.url).write() as session:
        session.get_one(Run, run_id).cancel_requested = True


def _ended(world: World) -> bool:
    with Session(open_state(world.url).engine) as session:
        states = [*session.scalars(select(Run.state)), *session.scalars(select(Restore.state))]
        states += session.scalars(select(Request.state))
        return all(state.final for state in states) and session.scalar(select(LedgerTask.id).limit(1)) is None


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
            sorted((one.state, one.disk_key) for one in session.scalars(select(Restore))),
            sorted((one.kind, one.state, one.summary) for one in session.scalars(select(Request))),
            [point.point for point in session.scalars(select(Point))]
            == [run for _, run in world.fleet.repository.points],
        )


def _run(world: World, prepare: Prepare, state: MortalState) -> object:
    """Run to the end, in a second life where the first one ends too soon."""
    world.declare(vms=("*", "nobody"), retry_count=1)
    world.fleet.join("proxy-1")
    with open_state(world.url).write() as session:
        prepare(world, session)
    try:
        world.turn_until(world.start(state), lambda: _ended(world))
    except Killed:
        world.turn_until(world.start(), lambda: _ended(world))
    return _end(world)


@pytest.mark.parametrize("prepare", [_prepare_failures, _prepare_cancel, _prepare_lost_commit, _prepare_requests])
def test_killed_after_any_commit_the_end_is_as_if_nothing_had_happened(
    new_world: Callable[[], World], prepare: Prepare
) -> None:
    immortal = new_world()
    state = _mortal(immortal, 0)
    expected = _run(immortal, prepare, state)
    commits = -state.commits_left
    assert commits >= 4

    for deadly in range(1, commits + 1):
        world = new_world()
        end = _run(world, prepare, _mortal(world, deadly))
        assert end == expected, f"killed after commit {deadly} of {commits}"
