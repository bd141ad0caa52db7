"""What is declared of dispatch, one by one and in files: the same, whichever way it was said."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.scheduler.cli.conftest import FLEET, Program

SAID = """
[dispatch]
patience_seconds = 120
window = { hours = ["Mon-Fri 20:00-6:00", "Sat,Sun 0:00-24:00"], timezone = "Europe/Berlin" }
latency = { stop_ms = 15, throttle_ms = 25 }
"""


def test_what_is_declared_one_by_one_is_exported_and_applied_alike(applied: Program, tmp_path: Path) -> None:
    for words in (
        ["fleet", "--window", "Mon-Fri 20:00-6:00", "--timezone", "Europe/Berlin", "--latency-stop", "15"],
        ["fleet", "--patience", "120"],
        ["fleet", "--prefer-network", "10.9.0.0/16", "--prefer-network", "10.0.0.0/8"],
        ["job", "nightly", "--window", "22:00-5:00", "--only-proxy", "dmz-*", "--prefer-proxy", "dmz-1"],
        ["job", "nightly", "--priority", "high"],
        ["repository", "main", "--prefer-proxy", "primary-*"],
        ["datastore", "ds1", "--max-concurrent-tasks", "8", "--latency-stop", "10"],
    ):
        assert applied("dispatch", *words).code == 0
    exported = applied("export").out

    fleet = tomllib.loads(exported)
    assert fleet["dispatch"] == {
        "patience_seconds": 120,
        "window": {"hours": ["Mon-Fri 20:00-6:00"], "timezone": "Europe/Berlin"},
        "latency": {"stop_ms": 15},
        "preferred_networks": ["10.9.0.0/16", "10.0.0.0/8"],
    }
    (job,), (repository,), (datastore,) = fleet["job"], fleet["repository"], fleet["datastore"]
    assert (job["window"], job["proxies"], job["preferred_proxies"], job["priority"]) == (
        {"hours": ["22:00-5:00"]},
        ["dmz-*"],
        ["dmz-1"],
        "high",
    )
    assert repository["preferred_proxies"] == ["primary-*"]
    assert (datastore["max_concurrent_tasks"], datastore["latency"]) == (8, {"stop_ms": 10})
    (tmp_path / "exported.toml").write_text(exported)
    assert applied("apply", "-f", str(tmp_path / "exported.toml")).out == "Nothing to change.\n"
    shown = applied("dispatch", "show").out
    assert "Mon-Fri 20:00-6:00 (Europe/Berlin)" in shown
    assert "window 22:00-5:00 UTC" in shown or "window 22:00-5:00" in shown


def test_what_a_file_no_longer_says_has_its_default_again(applied: Program, configured: Path) -> None:
    (configured / "fleet.toml").write_text(FLEET + SAID)
    changed = applied("apply", "-f", str(configured / "fleet.toml")).out
    assert "~ dispatch fleet\n    patience_seconds: 60.0 -> 120.0\n" in changed
    (configured / "fleet.toml").write_text(FLEET)
    assert "~ dispatch fleet" in applied("apply", "-f", str(configured / "fleet.toml")).out
    assert "dispatch" not in tomllib.loads(applied("export").out)


def test_a_window_is_taken_back(applied: Program) -> None:
    applied("dispatch", "job", "nightly", "--window", "22:00-5:00")
    applied("dispatch", "job", "nightly", "--any-time")
    assert "window" not in applied("export").out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("job nightly --window 25:00-6:00", 3, "window.hours[0]: expected hours such as 'Mon-Fri 20:00-06:00'"),
        ("job nightly --window 22:00-6:00 --timezone Mars/Base", 3, "expected a time zone such as 'Europe/Berlin'"),
        ("job nowhere --any-time", 4, "job 'nowhere': no job of that name is declared"),
        ("fleet --latency-stop 40", 3, "expected 'throttle_ms' no less than 'stop_ms', got 30 and 40"),
        ("datastore ds1 --latency-stop -1", 3, "latency.stop_ms: expected greater than 0, got -1"),
        ("fleet --prefer-network 10.9.0.5/16", 3, "expected a network such as '10.9.0.0/16', got '10.9.0.5/16'"),
        ("fleet --window 22:00-6:00 --any-time", 2, "--window and --any-time contradict each other"),
        ("job nightly --timezone Europe/Berlin", 2, "--timezone is about --window"),
        ("fleet", 2, "there is nothing to change"),
        ("job nightly", 2, "there is nothing to change"),
        ("repository main", 2, "there is nothing to change"),
        ("datastore ds1", 2, "there is nothing to change"),
    ],
)
def test_what_makes_no_sense_is_refused(applied: Program, words: str, code: int, message: str) -> None:
    refused = applied("dispatch", *words.split())
    assert refused.code == code
    assert message in " ".join(refused.err.split())


def test_a_wrong_key_of_the_table_is_named(applied: Program, configured: Path) -> None:
    (configured / "fleet.toml").write_text(FLEET + SAID.replace("patience_seconds", "patience"))
    refused = applied("apply", "-f", str(configured / "fleet.toml"))
    assert "dispatch: unknown key 'patience'; did you mean 'patience_seconds'?" in refused.err
