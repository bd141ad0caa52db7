"""What SQLite and PostgreSQL have to have in common."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from proxy_worker.contract.names import Quiesce
from proxy_worker.contract.subjects import DiskAddress
from scheduler.planning.criteria import Criteria
from scheduler.runs.advance import is_due
from scheduler.state.access import DatabaseAccess
from scheduler.state.asking import ask_for_run, find_run
from scheduler.state.errors import RunActiveError, StateError, StateLockedError, StateVersionError
from scheduler.state.models import DiskTask, Job, Record, Repository, Run, RunState, Site, VmRun
from scheduler.state.store import State, open_state


@pytest.fixture
def state(database: DatabaseAccess) -> State:
    opened = open_state(database, migrate=True)
    with opened.write() as session:
        session.add(Job(name="nightly", vms=("web*",), repository="main"))  # before what it refers to
        session.add(Repository(name="main", location="/backup", site="primary"))
        session.add(Site(name="primary"))
    return opened


def _ask(state: State) -> str:
    with state.write() as session:
        return ask_for_run(session, "nightly", now=1e9).id


def test_the_migrations_make_what_the_models_say(state: State) -> None:
    with state.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Record.metadata) == []


def test_everything_comes_back_as_it_was_put_in(state: State) -> None:
    run_id = _ask(state)
    large = 1 << 62
    with state.write() as session:
        session.add(VmRun(id="v", run_id=run_id, name="wéb 💾", started_at=1.5))
        address = DiskAddress(datastore="ds1", path="a/b.vmdk")
        disk = DiskTask(id="d", vm_run_id="v", run_id=run_id, disk_key="scsi0:0", address=address, fence=large)
        session.add(disk)

    with state.read() as session:
        run, found = find_run(session, run_id[:10]), session.get_one(DiskTask, "d")
        assert (run.criteria, run.quiesce, run.cancel_requested) == (Criteria(), Quiesce.PREFER, False)
        assert (found.address, found.fence) == (address, large)
        assert session.get_one(VmRun, "v").name == "wéb 💾"
        assert is_due(session, 1e9)


def test_a_reference_to_nothing_is_refused_at_the_end(state: State) -> None:
    def refer() -> None:
        with state.write() as session:
            session.add(Repository(name="other", location="/x", site="nowhere"))

    with pytest.raises(StateError, match=r"(?i)foreign key"):
        refer()


def test_what_a_run_owns_goes_with_it(state: State) -> None:
    run_id = _ask(state)
    with state.write() as session:
        session.add(VmRun(id="v", run_id=run_id, name="web01", started_at=1.0))
    with state.write() as session:
        session.delete(session.get_one(Run, run_id))
    with state.read() as session:
        assert session.get(VmRun, "v") is None


def test_one_look_sees_one_moment(state: State) -> None:
    with state.read() as session:
        assert len(session.scalars(select(Run)).all()) == 0
        _ask(state)
        assert len(session.scalars(select(Run)).all()) == 0


def test_of_two_commands_at_once_one_starts_the_job(state: State) -> None:
    barrier, refused = threading.Barrier(2), []

    def ask() -> None:
        barrier.wait()
        try:
            _ask(state)
        except RunActiveError:
            refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    with state.read() as session:
        assert [run.state for run in session.scalars(select(Run))] == [RunState.REQUESTED]


def test_a_writer_that_is_waited_for_too_long_is_named(state: State, database: DatabaseAccess) -> None:
    hasty = open_state(database, busy_timeout_s=0.1)
    with (
        state.write(),
        pytest.raises(StateLockedError, match="another process has held its write lock for too long"),
        hasty.write(),
    ):
        pass


def test_a_newer_schema_is_refused_and_none_says_how_to_get_one(state: State, database: DatabaseAccess) -> None:
    with state.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateVersionError, match="schema 9999 was made by a newer version"):
        open_state(database)
    with state.write() as session:
        session.execute(text("DROP TABLE alembic_version"))
    with pytest.raises(StateVersionError, match="it has not been set up"):
        open_state(database)
