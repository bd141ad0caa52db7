"""When the server's own backup is due, and when somebody has to be told."""

from __future__ import annotations

import pytest

from scheduler.configuration import SchedulerConfiguration
from scheduler.server_backup import nightly
from scheduler.server_backup.errors import RecoveryPassphraseError, ServerFileError
from scheduler.server_backup.keeping import back_up_server
from scheduler.server_backup.nightly import AGAIN_AFTER_S, NightlyBackup, backup_warnings, is_due
from scheduler.server_backup.settings import ServerBackupSettings
from scheduler.state.models import ServiceMark
from scheduler.state.store import State
from tests.system.live_fleet import wait_until

DAY_S = 86_400.0
THREE = 20_000 * DAY_S + 3 * 3600
"""Three o'clock of some night."""
SETTINGS = ServerBackupSettings(repository="main")


def _note(state: State, **changes: object) -> None:
    with state.write() as session:
        mark = session.get_one(ServiceMark, 1)
        for name, value in changes.items():
            setattr(mark, name, value)


def _due(state: State, now: float, since: float = THREE - 60) -> bool:
    with state.read() as session:
        return is_due(session, SETTINGS, now, since=since)


def _warnings(state: State, now: float) -> tuple[str, ...]:
    with state.read() as session:
        return backup_warnings(session, SETTINGS, now)


def test_it_is_made_each_night_and_made_up_for_after_a_night_without_the_server(state: State) -> None:
    assert not _due(state, THREE - 1)
    assert _due(state, THREE + 1)
    _note(state, backup_tried_at=THREE + 1, backed_up_at=THREE + 1)
    assert not _due(state, THREE + DAY_S - 10)
    assert _due(state, THREE + DAY_S + 1)
    assert _due(state, THREE + 5 * DAY_S + 4000, since=THREE + 5 * DAY_S + 3900)


def test_a_failure_is_told_and_tried_again(state: State) -> None:
    _note(
        state,
        backed_up_at=THREE - DAY_S,
        backup_tried_at=THREE,
        backup_failure="repository /backup: there is no such folder",
    )
    assert not _due(state, THREE + AGAIN_AFTER_S - 1)
    assert _due(state, THREE + AGAIN_AFTER_S)
    assert _warnings(state, THREE) == (
        "the server's own backup failed: repository /backup: there is no such folder",
    )


def test_one_that_was_killed_is_told_and_tried_again(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    _note(state, backed_up_at=THREE - DAY_S, backup_tried_at=THREE)
    assert not _due(state, THREE + AGAIN_AFTER_S - 1)
    assert _due(state, THREE + AGAIN_AFTER_S)
    monkeypatch.setattr(nightly, "COMMAND", ("sh", "-c", "kill -9 $$"))
    watched = NightlyBackup(SETTINGS, state)

    def told() -> bool:
        watched.watch()
        return _warnings(state, THREE) != ()

    wait_until(told, "the end of the one that is killed to be noted")
    assert _warnings(state, THREE) == ("the server's own backup failed: it was broken off (code -9)",)


def test_one_that_can_not_be_started_is_tried_again_and_the_server_goes_on(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _note(state, backed_up_at=THREE - DAY_S, backup_tried_at=THREE)
    monkeypatch.setattr(nightly, "COMMAND", ("/no/such/python",))
    watched = NightlyBackup(SETTINGS, state)

    watched.watch()

    assert "the server's own backup could not be started: No such file or directory" in caplog.text
    assert _due(state, THREE + AGAIN_AFTER_S)


def test_one_that_the_file_system_refuses_is_told(configuration: SchedulerConfiguration, state: State) -> None:
    in_the_way = configuration.state_dir / "server-backup/server.archive"
    in_the_way.mkdir(parents=True)
    with pytest.raises(ServerFileError, match="server-backup has room"):
        back_up_server(configuration, state)
    (warning,) = _warnings(state, THREE)
    assert warning.startswith(f"the server's own backup failed: file {in_the_way}: Is a directory")


def test_without_a_passphrase_to_seal_it_with_it_says_where_another_is_named(
    configuration: SchedulerConfiguration, state: State
) -> None:
    (configuration.secrets_dir / "main.passphrase").unlink()
    with pytest.raises(RecoveryPassphraseError, match=r"main\.passphrase.*recovery_credential"):
        back_up_server(configuration, state)


def test_one_that_is_overdue_is_told(state: State) -> None:
    _note(state, backup_tried_at=THREE, backed_up_at=THREE)
    assert _warnings(state, THREE + DAY_S) == ()
    assert _warnings(state, THREE + DAY_S + 7 * 3600) == ("the server's own backup is 31 hours old",)


def test_without_a_repository_nothing_is_said(state: State) -> None:
    _note(state, backed_up_at=1.0)
    with state.read() as session:
        assert backup_warnings(session, ServerBackupSettings(), THREE) == ()
