"""A server comes back from its archive whole, into SQLite or PostgreSQL, or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, text

from scheduler.configuration import SchedulerConfiguration, load_configuration
from scheduler.server_backup.archive import Archive, File, Manifest, write_archive
from scheduler.server_backup.errors import (
    ArchiveDamagedError,
    ArchiveVersionError,
    RecoveryPassphraseError,
    RestoreTargetError,
)
from scheduler.server_backup.making import make_archive
from scheduler.server_backup.restoring import EPOCHS_SKIPPED, restore_server
from scheduler.state.access import DatabaseAccess
from scheduler.state.models import Job, Request, RequestKind, Run, ServiceMark, Vm
from scheduler.state.schema import known_revisions
from scheduler.state.store import State, open_state
from tests.scheduler.server_backup.conftest import SECRET

PASSPHRASE = b"the passphrase"


@pytest.fixture
def archive(configuration: SchedulerConfiguration, state: State, tmp_path: Path) -> Path:
    """The server's archive."""
    path = tmp_path / "archive"
    make_archive(configuration, state, path, PASSPHRASE)
    return path


def _assert_whole(database: DatabaseAccess | str) -> None:
    state = open_state(database)
    with state.read() as session:
        mark = session.get_one(ServiceMark, 1)
        assert (mark.epoch, mark.installation) == (7 + EPOCHS_SKIPPED, "abc")
        assert session.scalar(select(func.count()).select_from(Vm)) == 2500
        assert session.get_one(Job, "nightly").vms == ("web*",)
        assert session.scalars(select(Run.job)).all() == ["nightly"]
        (rescan,) = session.scalars(select(Request)).all()
        assert (rescan.kind, rescan.repository) == (RequestKind.RESCAN, "main")
    state.close()


def test_a_server_comes_back_with_its_files_where_it_is_to_live(archive: Path, tmp_path: Path) -> None:
    restored = restore_server(archive, PASSPHRASE, tmp_path / "new")

    assert restored.files == 4
    found = load_configuration(tmp_path / "new/scheduler.toml", {})
    assert found.state_dir == tmp_path / "new/state"
    assert found.redis.ca_file is not None
    assert found.redis.ca_file.read_text() == "Redis' own"
    assert (found.local_proxy.site, found.server_backup.repository) == ("state", "main")
    assert found.signing_key_path.read_text() == SECRET
    assert found.signing_key_path.stat().st_mode & 0o777 == 0o600
    assert (found.pki_dir / "ca.pem").read_text() == "ca"
    assert (found.secrets_dir / "main.passphrase").read_text() == "the passphrase\n"
    assert not (found.state_dir / "local-proxy").exists()
    _assert_whole(found.database)


@pytest.mark.parametrize(
    ("state_dir", "secrets_dir"), [("state", "state/secrets"), ("secrets/state", "secrets"), ("state", "state")]
)
def test_secrets_and_state_may_lie_in_each_other(tmp_path: Path, state_dir: str, secrets_dir: str) -> None:
    server = tmp_path / "server"
    for folder in (state_dir, secrets_dir):
        (server / folder).mkdir(parents=True, exist_ok=True)
    (server / state_dir / "signing.key").write_text(SECRET)
    (server / state_dir / "local-proxy").mkdir()
    (server / state_dir / "local-proxy/instance").write_text("this machine's own")
    (server / secrets_dir / "main.passphrase").write_text("the passphrase\n")
    (server / "scheduler.toml").write_text(f'state_dir = "{state_dir}"\nsecrets_dir = "{secrets_dir}"\n')
    configuration = load_configuration(server / "scheduler.toml", {})
    state = open_state(configuration.database, migrate=True)
    make_archive(configuration, state, tmp_path / "archive", PASSPHRASE)
    state.close()

    assert restore_server(tmp_path / "archive", PASSPHRASE, tmp_path / "new").files == 2
    found = load_configuration(tmp_path / "new/scheduler.toml", {})
    assert found.signing_key_path.read_text() == SECRET
    assert (found.secrets_dir / "main.passphrase").read_text() == "the passphrase\n"
    open_state(found.database).close()


def test_a_server_moves_to_postgresql_and_back(
    archive: Path, tmp_path: Path, shared_database: DatabaseAccess
) -> None:
    restore_server(archive, PASSPHRASE, tmp_path / "shared", shared_database)
    _assert_whole(shared_database)
    settings = load_configuration(tmp_path / "shared/scheduler.toml", {})
    assert settings.database_access() == shared_database

    state = open_state(settings.database_access())
    with state.write() as session:
        session.get_one(ServiceMark, 1).epoch = 7
        session.execute(text("DELETE FROM requests"))
    make_archive(settings, state, tmp_path / "again", PASSPHRASE)
    state.close()
    restore_server(tmp_path / "again", PASSPHRASE, tmp_path / "back")
    _assert_whole(load_configuration(tmp_path / "back/scheduler.toml", {}).database)


def test_a_database_that_holds_something_is_left_alone(
    archive: Path, tmp_path: Path, shared_database: DatabaseAccess
) -> None:
    open_state(shared_database, migrate=True).close()
    with pytest.raises(RestoreTargetError, match="it is not empty"):
        restore_server(archive, PASSPHRASE, tmp_path / "new", shared_database)
    assert not (tmp_path / "new").exists()
    open_state(shared_database).close()


def test_a_restore_that_fails_leaves_the_database_empty_for_the_next(
    archive: Path, tmp_path: Path, shared_database: DatabaseAccess
) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(ArchiveDamagedError):
        restore_server(cut, PASSPHRASE, tmp_path / "new", shared_database)
    in_the_way = File("secrets/restored-database/file", 0o600, b"")
    with Archive(archive, PASSPHRASE) as opened:
        write_archive(tmp_path / "late", PASSPHRASE, opened.manifest, [in_the_way, *opened.contents()])
    with pytest.raises(RestoreTargetError, match="Is a directory"):  # when the rows are in already
        restore_server(tmp_path / "late", PASSPHRASE, tmp_path / "new", shared_database)
    restore_server(archive, PASSPHRASE, tmp_path / "new", shared_database)
    _assert_whole(shared_database)


def test_a_folder_that_holds_something_is_left_alone(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").touch()
    with pytest.raises(RestoreTargetError, match="it is not empty, and nothing is written over"):
        restore_server(archive, PASSPHRASE, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_nothing_of_the_server_is_readable_without_the_passphrase(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for planted in (SECRET.encode(), b"nightly", b"the passphrase", b"scheduler.toml"):
        assert planted not in content
    with pytest.raises(RecoveryPassphraseError, match="this passphrase doesn't open it"):
        restore_server(archive, b"another", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_that_was_changed_or_cut_short_restores_nothing(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    damaged = tmp_path / "damaged"
    cut = (content[:-1], content[: len(content) // 2], content[:40], b"", content + b"more")
    places = (len(content) // 3, len(content) - 5)
    changed = (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places)
    for other in (*cut, *changed):
        damaged.write_bytes(other)
        with pytest.raises((ArchiveDamagedError, RecoveryPassphraseError)):
            restore_server(damaged, PASSPHRASE, tmp_path / "new")
        assert not (tmp_path / "new").exists()
    assert list(tmp_path.glob(".*partial")) == []


def test_frames_that_are_left_out_or_swapped_are_noticed(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "large"
    noise = File("state/noise", 0o600, secrets.token_bytes(3 << 20))
    write_archive(path, PASSPHRASE, manifest, [noise])
    content = path.read_bytes()
    frame = 4 + (1 << 20) + 16
    header = 37
    first, second = (content[header + number * frame : header + (number + 1) * frame] for number in (0, 1))
    rest = content[header + 2 * frame :]
    for wrong in (content[:header] + first + rest, content[:header] + first + second + second + rest):
        path.write_bytes(wrong)
        with pytest.raises(ArchiveDamagedError), Archive(path, PASSPHRASE) as archive:
            list(archive.contents())


@pytest.fixture
def manifest() -> Manifest:
    """Of an archive that holds next to nothing."""
    return Manifest(
        version=1, made_at=1.0, host="old", product="0.1", schema=known_revisions()[-1], configuration={}
    )


def test_a_backup_of_a_newer_version_says_what_to_install(tmp_path: Path) -> None:
    newer = Manifest(version=1, made_at=1.0, host="old", product="9.9", schema="9999", configuration={})
    write_archive(tmp_path / "newer", PASSPHRASE, newer, [])
    with pytest.raises(ArchiveVersionError, match="schema 9999, which this version doesn't know"):
        restore_server(tmp_path / "newer", PASSPHRASE, tmp_path / "new")


def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    configuration: SchedulerConfiguration, archive: Path, tmp_path: Path
) -> None:
    with Archive(archive, PASSPHRASE) as opened:
        sites = [one for one in opened.contents() if not isinstance(one, File) and one.table == "sites"]
        manifest = opened.manifest
    older = Manifest(1, 1.0, "old", "0.0", "0001", {**manifest.configuration})
    write_archive(tmp_path / "older", PASSPHRASE, older, sites)
    restore_server(tmp_path / "older", PASSPHRASE, tmp_path / "new")
    engine = create_engine(f"sqlite:///{tmp_path / 'new/state/scheduler.db'}")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == known_revisions()[-1]
        assert connection.scalars(text("SELECT name FROM sites")).all() == ["primary"]


def test_an_archive_that_names_a_file_outside_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    for name in ("../outside", "/etc/passwd", "state/../../outside", "other/file"):
        path = tmp_path / name.replace("/", "-")
        write_archive(path, PASSPHRASE, manifest, [File(name, 0o600, b"x")])
        with pytest.raises(ArchiveDamagedError, match="it holds a file for"):
            restore_server(path, PASSPHRASE, tmp_path / "new")
