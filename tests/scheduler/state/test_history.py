"""What is forgotten of the past, and what stays however old it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.specification import InventoryScan
from proxy_worker.contract.subjects import DiskAddress
from scheduler.state import history
from scheduler.state.access import DatabaseAccess
from scheduler.state.asking import ask_for_run
from scheduler.state.history import forget_runs, forget_the_rest
from scheduler.state.models import (
    DiskTask,
    Job,
    LedgerTask,
    Point,
    Repository,
    Request,
    RequestKind,
    Run,
    RunState,
    Site,
    SnapshotEntry,
    SnapshotState,
    VmRun,
    WorkState,
)
from scheduler.state.store import open_state

NOW = 1e9


@pytest.fixture
def session(database: DatabaseAccess) -> Iterator[Session]:
    state = open_state(database, migrate=True)
    with state.write() as opened:
        opened.add(Site(name="primary"))
        opened.add(Repository(name="main", location="/backup", site="primary"))
        opened.add(Job(name="nightly", vms=("*",), repository="main"))
        opened.flush()
        yield opened
    state.close()


def _ran(session: Session, age: float, state: RunState = RunState.SUCCEEDED) -> Run:
    """A run of one VM with one disk, `age` seconds ago."""
    run = ask_for_run(session, "nightly", now=NOW - age)
    run.state, run.ended_at = state, NOW - age if state.final else None
    session.flush()
    session.add(VmRun(id=f"{run.id}.1", run_id=run.id, vm_id="id-web01", name="web01", started_at=1.0))
    session.flush()
    disk = DiskTask(id=f"{run.id}.d", vm_run_id=f"{run.id}.1", run_id=run.id, disk_key="a", address=DiskAddress())
    session.add(disk)
    session.flush()
    return run


def _left(session: Session) -> list[str]:
    session.expire_all()
    return list(session.scalars(select(Run.id).order_by(Run.created_at)))


def test_old_runs_go_with_all_they_own_and_young_ones_stay(session: Session) -> None:
    _ran(session, 300)
    young, newest = _ran(session, 50), _ran(session, 10)

    assert forget_runs(session, NOW - 100) == 1

    assert _left(session) == [young.id, newest.id]
    assert len(session.scalars(select(DiskTask)).all()) == len(session.scalars(select(VmRun)).all()) == 2


def test_the_newest_run_of_a_job_stays_however_old_it_is(session: Session) -> None:
    newest = _ran(session, 300)
    assert forget_runs(session, NOW - 100) == 0
    assert _left(session) == [newest.id]


def test_what_points_and_journals_need_stays(session: Session) -> None:
    with_point, with_task, with_snapshot, unended = (_ran(session, age) for age in (400, 390, 380, 370))
    _ran(session, 10)
    session.get_one(VmRun, f"{with_point.id}.1").repository_run = "point-1"
    point = Point(
        repository="main",
        vm_id="id-web01",
        point="point-1",
        vm_name="web01",
        job="nightly",
        created_at=1.0,
        disks=(),
    )
    task = LedgerTask(
        id="t",
        kind=TaskKind.INVENTORY_SCAN,
        title="t",
        job="nightly",
        priority=1,
        body=InventoryScan(datastore="ds"),
        created_at=1.0,
        run_id=with_task.id,
    )
    snapshot = SnapshotEntry(
        id="s",
        vcenter="vc",
        vm_ref="vm-1",
        vm_id="id-web01",
        vm_name="web01",
        vm_run_id=f"{with_snapshot.id}.1",
        datastores=(),
        state=SnapshotState.GIVEN_UP,
        created_at=1.0,
    )
    session.add_all([point, task, snapshot])
    unended.state, unended.ended_at = RunState.RUNNING, None
    session.flush()

    assert forget_runs(session, NOW - 100) == 0

    session.delete(point)
    session.delete(task)
    snapshot.state = SnapshotState.GONE
    session.flush()
    assert forget_runs(session, NOW - 100) == 3


def test_a_few_are_forgotten_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_DISKS", 2)
    for age in (500, 400, 300, 10):
        _ran(session, age)
    assert [forget_runs(session, NOW - 100) for _ in range(3)] == [2, 1, 0]


def test_requests_that_ended_long_ago_go(session: Session) -> None:
    for name, age, state in (("old", 300, WorkState.FAILED), ("young", 10, WorkState.FAILED)):
        request = Request(id=name, kind=RequestKind.CHECK, repository="main", state=state, created_at=1.0)
        request.ended_at = NOW - age
        session.add(request)
    session.add(Request(id="open", kind=RequestKind.CHECK, repository="main", created_at=1.0))
    session.flush()
    assert forget_the_rest(session, NOW - 100) == 1
    assert sorted(session.scalars(select(Request.id))) == ["open", "young"]
