"""scheduler.toml: found, read, overridden, and refused with file, key and expectation."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.program.settings import SecretError, SettingsError
from scheduler.configuration import DatabasePasswordError, load_configuration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scheduler.toml"


def test_paths_are_relative_to_the_file(file: Path) -> None:
    file.write_text('state_dir = "state"\n[local_proxy.datastores.ds1]\npath = "ds"\n')

    configuration = load_configuration(file, {})

    assert configuration.state_dir == file.parent / "state"
    assert configuration.database == f"sqlite:///{file.parent}/state/scheduler.db"
    assert configuration.local_proxy.datastores["ds1"].path == file.parent / "ds"


def test_the_environment_names_the_file_and_overrides_its_keys(file: Path) -> None:
    file.write_text('[redis]\nurl = "redis://a:1/0"\n')
    environment = {
        "SCHEDULER_CONFIG": str(file),
        "SCHEDULER_REDIS__URL": "redis://b:2/0",
        "SCHEDULER_LOCAL_PROXY__MAX_CONCURRENT_TASKS": "7",
        "SCHEDULER_LOCAL_PROXY__TRANSPORT_MODES": '["network"]',
        "UNRELATED": "x",
    }

    configuration = load_configuration(None, environment)

    assert configuration.redis.url == "redis://b:2/0"
    assert configuration.local_proxy.max_concurrent_tasks == 7
    assert configuration.local_proxy.transport_modes == ("network",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sate_dir = "x"', "unknown key `sate_dir`"),
        ("[local_proxy]\nmax_concurrent_tasks = 0", "`local_proxy.max_concurrent_tasks`: input should be greater"),
        ('[local_proxy]\nname = "a b"', "`local_proxy.name`"),
        ("state_dir = ", "it is no TOML"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_configuration(file, {})
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_is_no_text_is_named_without_its_bytes(file: Path) -> None:
    file.write_bytes(b"\x7fELF\xff\x00")
    with pytest.raises(SettingsError, match="it is no TOML, nor any text in UTF-8") as caught:
        load_configuration(file, {})
    assert str(file) in str(caught.value)
    assert "codec" not in str(caught.value)


def test_a_file_that_is_missing_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory"):
        load_configuration(file, {})


def test_the_password_comes_from_its_file(file: Path) -> None:
    file.write_text('secrets_dir = "secrets"\n[redis]\ncredential = "redis"\n')
    configuration = load_configuration(file, {})
    with pytest.raises(SecretError, match="secrets/redis: No such file"):
        configuration.redis_access()
    (file.parent / "secrets").mkdir()
    (file.parent / "secrets/redis").write_text("very secret\n")
    assert configuration.redis_access().password == "very secret"


def test_a_password_in_the_databases_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.toml"
    file.write_text('database_url = "postgresql+pg8000://backup:planted@db/fleet"\n')
    with pytest.raises(
        DatabasePasswordError, match="name a file in `secrets_dir` by `database_credential`"
    ) as caught:
        load_configuration(file, {}).database_access()
    assert "planted" not in str(caught.value)


def test_the_databases_password_is_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.toml"
    file.write_text(
        'database_url = "postgresql+pg8000://backup@db/fleet"\ndatabase_credential = "database"\n'
        'secrets_dir = "."\ndatabase_ca_file = "ca.pem"\n'
    )
    with pytest.raises(SecretError, match="password of the database"):
        load_configuration(file, {}).database_access()
    (tmp_path / "database").write_text("planted\n")
    access = load_configuration(file, {}).database_access()
    assert (access.password, access.ca_file) == ("planted", tmp_path / "ca.pem")
    assert "planted" not in str(access)
