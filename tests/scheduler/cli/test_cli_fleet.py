"""`scheduler apply` and `scheduler export`: what is declared, as a file."""

from __future__ import annotations

import io
import sqlite3
import sys
from pathlib import Path

import pytest
import typer

from tests.scheduler.cli.conftest import FLEET, Program
from tests.scheduler.conftest import World


class Terminal(io.StringIO):
    """What somebody types who sits before it."""

    def isatty(self) -> bool:
        return True


def test_applying_says_what_was_added_changed_and_removed(scheduler: Program, configured: Path) -> None:
    fleet = configured / "fleet.toml"
    added = scheduler("apply", "-f", str(fleet))
    assert (added.code, added.out.splitlines()) == (
        0,
        ["+ site primary", "+ datastore ds1", "+ repository main", "+ job nightly", "4 added."],
    )
    assert scheduler("apply", "-f", str(fleet)).out == "Nothing to change.\n"

    job = FLEET.index("[[job]]")
    changed = FLEET[:job].replace("/backup/main", "/backup/2") + FLEET[job:].replace("nightly", "hourly")
    fleet.write_text(changed)
    assert scheduler("apply", "-f", str(fleet)).out.splitlines() == [
        "~ repository main",
        "    location: /backup/main -> /backup/2",
        "+ job hourly",
        "- job nightly",
        "1 added, 1 changed, 1 removed.",
    ]


def test_who_says_that_a_repository_is_elsewhere_is_told_that_its_points_are_not_known(
    applied: Program, configured: Path
) -> None:
    fleet = configured / "fleet.toml"
    assert "rescan" not in applied("apply", "-f", str(fleet)).err
    fleet.write_text(FLEET.replace("/backup/main", "/backup/2"))

    told = applied("apply", "-f", str(fleet))

    assert "Repository main is elsewhere now: `scheduler repository rescan main` reads" in told.err, told.err


def test_a_dry_run_changes_nothing(scheduler: Program, configured: Path) -> None:
    fleet = str(configured / "fleet.toml")
    assert "Dry run: nothing was changed." in scheduler("apply", "-f", fleet, "--dry-run").out
    assert scheduler("job", "list", "--json").json == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_in_a_terminal_people_are_asked_before_anything_is_removed(
    applied: Program, configured: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    fleet = configured / "fleet.toml"
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert applied("apply", "-f", str(fleet)).out == "Nothing to change.\n"

    fleet.write_text(fleet.read_text().partition("[[job]]")[0])
    asked = applied("apply", "-f", str(fleet))

    assert asked.code == code
    assert "The file leaves out job nightly. Remove that [y/N]:" in asked.err
    assert [job["name"] for job in applied("job", "list", "--json").json] == (["nightly"] if answer == "n" else [])
    assert applied("apply", "-f", str(fleet), "--yes").code == 0
    assert applied("job", "list", "--json").json == []


def test_what_somebody_declares_while_the_question_stands_is_not_removed(
    applied: Program, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = configured / "fleet.toml"
    fleet.write_text(fleet.read_text().partition("[[job]]")[0])

    def confirm(_: str, **__: bool) -> None:
        assert applied("job", "create", "meanwhile", "--vm", "*", "--repository", "main").code == 0

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(typer, "confirm", confirm)
    refused = applied("apply", "-f", str(fleet))

    assert (refused.code, "job meanwhile: somebody has declared that" in refused.err) == (9, True), refused.err
    assert [job["name"] for job in applied("job", "list", "--json").json] == ["meanwhile", "nightly"]


def test_the_changes_as_json(scheduler: Program, configured: Path) -> None:
    shown = scheduler("apply", "-f", str(configured / "fleet.toml"), "--json").json
    assert shown["applied"] is True
    assert {"action": "added", "kind": "job", "name": "nightly", "keys": {}} in shown["changes"]


def test_an_export_can_be_applied_from_standard_input(applied: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = applied("export").out
    assert 'name = "nightly"' in exported
    monkeypatch.setattr(sys, "stdin", io.StringIO(exported))
    assert applied("apply", "-f", "-").out == "Nothing to change.\n"


def test_an_export_as_json_has_the_defaults_too(applied: Program) -> None:
    assert applied("export", "--json").json["job"][0]["level"] == "optimal"


def test_a_wrong_file_is_refused_whole_and_exits_3(scheduler: Program, configured: Path) -> None:
    (configured / "fleet.toml").write_text(FLEET.replace("vms =", "vmz ="))
    refused = scheduler("apply", "-f", str(configured / "fleet.toml"))
    assert refused.code == 3
    assert refused.err.startswith(f"scheduler: {configured}/fleet.toml: ")
    assert "job 'nightly': unknown key 'vmz'; did you mean 'vms'?" in refused.err
    assert "has not been set up" in scheduler("job", "list").err, "nothing was applied, not even the site"


def test_a_missing_file_exits_4(scheduler: Program) -> None:
    refused = scheduler("apply", "-f", "nowhere.toml")
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("scheduler: nowhere.toml: there is no such file.")


def test_an_undeclared_proxy_is_warned_of_and_applied(scheduler: Program, configured: Path) -> None:
    text = FLEET.replace('credential = "main"', 'credential = "main"\nproxies = ["far"]')
    (configured / "fleet.toml").write_text(text)
    applied = scheduler("apply", "-f", str(configured / "fleet.toml"))
    assert applied.code == 0
    assert "warning: repository 'main', key 'proxies': no proxy 'far' is declared" in " ".join(applied.err.split())


def test_a_locked_database_exits_9(applied: Program, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scheduler.state.store.open_state.__kwdefaults__", {"migrate": False, "busy_timeout_s": 0.1}
    )
    other = sqlite3.connect(world.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = applied("job", "disable", "nightly")
    other.close()
    assert refused.code == 9
    assert "another process has held its write lock" in refused.err


def test_a_database_of_a_newer_version_is_left_alone(applied: Program, world: World, configured: Path) -> None:
    other = sqlite3.connect(world.url.removeprefix("sqlite:///"))
    with other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    for command in (("job", "list"), ("apply", "-f", str(configured / "fleet.toml"))):
        refused = applied(*command)
        assert refused.code == 1
        assert "its schema 9999 was made by a newer version of the scheduler" in refused.err


def test_a_database_that_was_never_set_up_says_what_to_do(scheduler: Program) -> None:
    refused = scheduler("job", "list")
    assert refused.code == 1
    assert "Run `scheduler apply -f fleet.toml`, or start `scheduler serve`" in refused.err


def test_a_missing_configuration_names_the_file(scheduler: Program) -> None:
    refused = scheduler("--config", "/nowhere/scheduler.toml", "job", "list")
    assert refused.code == 3
    assert "/nowhere/scheduler.toml: No such file or directory" in refused.err


def test_a_proxy_that_nobody_declared_is_removed_once_it_is_away(applied: Program, world: World) -> None:
    world.start()
    world.fleet.join("replica-1")
    refused = applied("proxy", "remove", "replica-1", "--yes")
    assert (refused.code, "it still runs" in refused.err) == (9, True), refused.err

    world.fleet.ledger.depart(world.fleet.identities["replica-1"])
    assert applied("proxy", "remove", "replica-1", "--yes").err.endswith("Removed proxy replica-1.\n")
    assert applied("proxy", "remove", "replica-1", "--yes").code == 4
