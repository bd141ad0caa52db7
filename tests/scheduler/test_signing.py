"""The signing key: made once, private, and never replaced silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.contract.signing import encode_public_key
from scheduler.configuration import SchedulerConfiguration
from scheduler.signing import SigningKeyError, StateFolderError, signing_key


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    configuration = SchedulerConfiguration(state_dir=tmp_path / "state")

    first = signing_key(configuration)
    second = signing_key(configuration)

    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert configuration.signing_key_path.stat().st_mode & 0o777 == 0o600
    assert configuration.public_key_path.read_text() == encode_public_key(first.public_key()) + "\n"
    assert {path.name for path in configuration.state_dir.iterdir()} == {"signing.key", "signing.pub"}


def test_a_key_that_cannot_be_read_is_an_error_and_stays(tmp_path: Path) -> None:
    configuration = SchedulerConfiguration(state_dir=tmp_path)
    configuration.signing_key_path.write_text("damaged")
    with pytest.raises(SigningKeyError, match="Restore it from a backup"):
        signing_key(configuration)
    assert configuration.signing_key_path.read_text() == "damaged"


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateFolderError, match="Check `state_dir`"):
        signing_key(SchedulerConfiguration(state_dir=tmp_path / "file" / "state"))
