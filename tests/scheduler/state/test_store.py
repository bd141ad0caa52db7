"""The scheduler's database: made and brought up to date by itself, and clear about what is wrong with it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from proxy_worker.contract.names import Quiesce
from scheduler.planning.criteria import Criteria
from scheduler.state import migrations
from scheduler.state.asking import points_in_use
from scheduler.state.errors import (
    SchedulerRunningError,
    StateDamagedError,
    StateFullError,
    StateLockedError,
    StateReadOnlyError,
    StateUrlError,
    StateVersionError,
)
from scheduler.state.lock import is_served, only_scheduler
from scheduler.state.models import Datastore, Job, Point, Record, RestoredDisk, Run, Site, VmRun
from scheduler.state.schema import migrate as bring_to
from scheduler.state.store import open_state

FIRST_VERSION = """
PRAGMA foreign_keys = ON;
INSERT INTO sites VALUES ('primary');
INSERT INTO datastores (name, kind, site) VALUES ('ds1', 'directory', 'primary');
INSERT INTO repositories (name, location, site) VALUES ('main', '/backup', 'primary');
INSERT INTO jobs VALUES ('nightly', 'backup', '["web*"]', 'main', 'optimal', 'automatic', 1, 'regular', NULL, 'UTC',
    3, 600, 1, NULL);
INSERT INTO runs VALUES ('run-1', 'nightly', 'manual', 'succeeded', 1, 1, 2, 0, NULL, 'main', 'optimal',
    'automatic', 1, 'regular', 3, 600, '["web*"]');
INSERT INTO vm_runs VALUES ('run-1.1', 'run-1', 'id-web01', 'web01', 'succeeded', 1, 'point-1', '[]', 0, NULL, NULL,
    1, 2);
"""
PINNED = """
INSERT INTO points (repository, vm_id, point, vm_name, job, created_at, disks, pinned) VALUES
    ('main', 'id-web01', 'used', 'web01', 'nightly', 1, '[]', 1),
    ('main', 'id-web01', 'kept', 'web01', 'nightly', 2, '[]', 1);
INSERT INTO vm_restores (id, kind, repository, vm_id, vm_name, point, vcenter, target_name, wishes, instance_uuid,
    same_machine, state, cancel_requested, cancelled, tracks_changes, touched, written, warnings, created_at, share,
    pinned) VALUES ('restore-1', 'new VM', 'main', 'id-web01', 'web01', 'used', 'vc1', 'web01', '{}', 'uuid',
    0, 'running', 0, 0, 0, 1, 0, '[]', 3, '00', 1);
INSERT INTO restored_disks (id, restore_id, disk_key, size_bytes, blank, state, tries, attempts) VALUES
    ('disk-1', 'restore-1', 'scsi0:0', 1, 1, 'succeeded', 1, 1);
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'scheduler.db'}"


def test_the_migrations_make_what_the_models_say(url: str) -> None:
    with open_state(url, migrate=True).engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Record.metadata) == []


def test_what_a_database_of_the_first_version_holds_survives_the_upgrade(url: str, tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with create_engine(url).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "scheduler.db")) as old, old:
        old.executescript(FIRST_VERSION)

    with open_state(url, migrate=True).read() as session:
        job, run = session.get_one(Job, "nightly"), session.get_one(Run, "run-1")
        assert (job.vms, job.criteria, job.quiesce) == (("web*",), Criteria(), Quiesce.PREFER)
        assert (run.criteria, run.quiesce) == (Criteria(), Quiesce.PREFER)
        assert session.get_one(VmRun, "run-1.1").name == "web01"
        assert session.get_one(Datastore, "ds1").vcenter is None


def test_pins_that_restores_had_made_are_gone_and_those_of_people_stay(url: str, tmp_path: Path) -> None:
    with create_engine(url).connect() as connection:
        bring_to(connection, url, "0017")
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "scheduler.db")) as old, old:
        old.executescript(PINNED)

    with open_state(url, migrate=True).read() as session:
        assert {point.point: point.pinned for point in session.scalars(select(Point))} == {
            "used": False,
            "kept": True,
        }
        assert points_in_use(session, "main") == {("id-web01", "used"): "restore-1"}
        assert session.get_one(RestoredDisk, "disk-1").restore_id == "restore-1"


def test_readers_do_not_wait_for_a_writer(url: str) -> None:
    state = open_state(url, migrate=True, busy_timeout_s=0.1)
    with state.write() as writing:
        writing.add(Site(name="primary"))
        writing.flush()
        with state.read() as reading:
            assert reading.get(Site, "primary") is None


def test_a_transaction_that_fails_leaves_nothing(url: str) -> None:
    state = open_state(url, migrate=True)

    def fail() -> None:
        with state.write() as session:
            session.add(Site(name="primary"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with state.read() as session:
        assert session.get(Site, "primary") is None


def test_a_commit_of_anybody_changes_the_version(url: str) -> None:
    state, other = open_state(url, migrate=True), open_state(url, migrate=True)
    versions = [state.version(), state.version()]
    for writer in (state, other):
        with writer.write() as session:
            session.add(Site(name=f"site-{len(versions)}"))
        versions.append(state.version())

    assert len(set(versions)) == 3


def test_a_database_that_was_never_set_up_says_how_to(url: str) -> None:
    with pytest.raises(StateVersionError, match=r"it has not been set up\. Run `scheduler apply"):
        open_state(url)


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    state = open_state(url, migrate=True)
    with state.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for migrate in (True, False):
        with pytest.raises(StateVersionError, match="schema 9999 was made by a newer version"):
            open_state(url, migrate=migrate)


def test_a_locked_database_is_named_after_a_while(url: str, tmp_path: Path) -> None:
    state = open_state(url, migrate=True, busy_timeout_s=0.1)
    holder = sqlite3.connect(tmp_path / "scheduler.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with (
        closing(holder),
        pytest.raises(StateLockedError, match=r"scheduler\.db: another process has held its write lock"),
        state.write(),
    ):
        pass


def test_a_full_database_is_named(url: str) -> None:
    state = open_state(url, migrate=True)

    def fill() -> None:
        with state.write() as session:
            session.execute(text("PRAGMA max_page_count = 1"))
            session.add_all(Site(name=f"site-{number}") for number in range(10_000))

    with pytest.raises(StateFullError, match=r"scheduler\.db: its file system is full\. Free some space"):
        fill()


def test_a_file_that_is_no_database_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler.db").write_bytes(b"something else " * 500)
    with pytest.raises(StateDamagedError, match="file is not a database"):
        open_state(url, migrate=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateReadOnlyError, match="Check `state_dir`"):
        open_state(f"sqlite:///{tmp_path / 'file' / 'scheduler.db'}", migrate=True)


def test_a_url_of_nothing_is_named() -> None:
    for bad in ("nonsense", "nosuch://host/name"):
        with pytest.raises(StateUrlError, match="database_url"):
            open_state(bad)


def test_a_second_scheduler_is_refused_by_name(url: str) -> None:
    holding = (
        "import sys\n"
        "from scheduler.state.store import open_state\n"
        "from scheduler.state.lock import only_scheduler\n"
        "with only_scheduler(open_state(sys.argv[1], migrate=True)): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "held\n"
        state = open_state(url)
        assert is_served(state)
        refused = f"another scheduler serves from it: process {first.pid} on"
        with pytest.raises(SchedulerRunningError, match=refused), only_scheduler(state):
            pass
        first.stdin.close()
        first.wait(120)
        assert not is_served(state)
        with only_scheduler(state):
            assert is_served(state)
