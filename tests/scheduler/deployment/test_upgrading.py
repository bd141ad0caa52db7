"""Proxies are deployed again, upgraded one after the other, and go back when that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from proxy_worker.ledger import Ledger
from scheduler.deployment.errors import DeploymentStepError
from scheduler.deployment.fleet_watch import FleetWatch
from scheduler.deployment.survey import Agent
from tests.scheduler.cli.conftest import Program
from tests.scheduler.deployment.conftest import Releases, add
from tests.simulators.bare_machine import USER, BareMachine

NewMachine = Callable[..., BareMachine]
SOFTWARE = "opt/proxyfleet-proxy"
STEPS = ("look", "unpack", "install", "account", "write", "activate", "supervisor")


def releases(machine: BareMachine) -> tuple[str, set[str]]:
    """The one that runs, and all that are there."""
    software = machine.root / SOFTWARE
    return (software / "current").readlink().name, {one.name for one in (software / "releases").iterdir()}


def test_after_a_failure_at_any_step_it_is_done_again(
    applied: Program, new_machine: NewMachine, light_releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = new_machine(toolbox=True)
    real, fails_at = Agent.call, [*STEPS]

    def call(self: Agent, verb: str, *arguments: Any, **more: Any) -> Any:
        if fails_at and verb == fails_at[0] and not (verb == "look" and adding):
            fails_at.pop(0)
            raise DeploymentStepError(f"server there: {verb}", why="the cable was pulled", remedy="Do it again.")
        return real(self, verb, *arguments, **more)

    monkeypatch.setattr(Agent, "call", call)
    adding, (first, *others) = False, STEPS
    assert "the cable was pulled" in add(applied, machine, "p1").err, first
    assert add(applied, machine, "p1").code == 1
    for step in others[1:]:
        done = applied("proxy", "deploy", "p1")
        assert (done.code, f"server there: {step}: the cable was pulled" in done.err) == (1, True), done.err
        shown = applied("proxy", "show", "p1", "--json").json["server"]
        assert (shown["state"], "the cable was pulled" in shown["problem"]) == ("failed", True)
    done = applied("proxy", "deploy", "p1", "--json")
    assert done.code == 0, done.err
    shown = applied("proxy", "show", "p1", "--json").json["server"]
    assert (shown["state"], shown["release"], shown["problem"]) == ("deployed", "0.1-light", "")
    assert applied("proxy", "deploy", "p1", "--json").json[0]["restarted"] is False


def declare(scheduler: Program, fleet: Path, **changes: Any) -> None:
    """Change the configuration of the one proxy that is on a machine."""
    document = tomlkit.parse(scheduler("export").out).unwrap()
    server = next(one["server"] for one in document["proxy"] if "server" in one)
    server.update(changes)
    fleet.write_text(tomlkit.dumps(document))
    assert scheduler("apply", "-f", str(fleet)).code == 0


def test_after_a_change_that_failed_the_configuration_before_is_started_again(
    applied: Program,
    new_machine: NewMachine,
    light_releases: Releases,
    configured: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = new_machine(toolbox=True)
    assert add(applied, machine, "p1").code == 0
    declare(applied, configured / "fleet.toml", encryption_to_host=True)
    with monkeypatch.context() as patched:
        patched.setattr(FleetWatch, "registered", lambda *_: None)
        assert applied("proxy", "deploy", "p1").code == 1
    declare(applied, configured / "fleet.toml", encryption_to_host=False)
    assert applied("proxy", "deploy", "p1", "--json").json[0]["restarted"] is True
    assert "encryption_to_host" not in (machine.root / "etc/proxyfleet-proxy/proxy.toml").read_text()
    assert applied("proxy", "deploy", "p1", "--json").json[0]["restarted"] is False


def test_what_ran_before_runs_again_when_a_step_fails_once_it_is_stopped(
    applied: Program,
    new_machine: NewMachine,
    light_releases: Releases,
    configured: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = new_machine(toolbox=True)
    assert add(applied, machine, "p1").code == 0
    settings = machine.root / "etc/proxyfleet-proxy/proxy.toml"
    before = settings.read_text()
    light_releases(2)
    declare(applied, configured / "fleet.toml", encryption_to_host=True, credentials=["spare"])
    (configured / "spare.password").write_text("of something")
    fails_at: list[str] = []
    real = Agent.call

    def call(self: Agent, verb: str, asked: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        if [verb] == fails_at[:1] and (asked.get("folders") or asked.get("what") == "start"):
            raise DeploymentStepError(f"server there: {fails_at.pop(0)}", why="it is full", remedy="Do it again.")
        return real(self, verb, asked, *arguments, **more)

    monkeypatch.setattr(Agent, "call", call)
    with_secret = "runs again, with the new secrets (spare.password). Do"
    for verb, outcome in (("write", "runs again. Do"), ("supervisor", with_secret)):
        fails_at.append(verb)
        done = applied("proxy", "deploy", "p1")
        assert (done.code, f"it is full. 0.1-light {outcome}" in done.err) == (1, True), done.err
        assert (releases(machine)[0], settings.read_text()) == ("0.1-light", before)
        assert machine.processes() != []
        assert applied("proxy", "show", "p1", "--json").json["state"] != "disabled"
    assert applied("proxy", "deploy", "p1", "--json").json[0]["release"] == "0.2-light"


def test_proxies_are_upgraded_one_after_the_other_and_enough_keep_running(
    applied: Program, new_machine: NewMachine, light_releases: Releases, ledger: Ledger
) -> None:
    ledger.open_epoch(1)
    machines = [new_machine(toolbox=True) for _ in range(2)]
    for number, machine in enumerate(machines):
        assert add(applied, machine, f"p{number}").code == 0
    light_releases(2)

    done = applied("proxy", "upgrade", "--all", "--keep", "2")
    assert (done.code, "without it 1 would run, and 2 are to be kept running" in done.err) == (9, True)
    assert [releases(machine)[0] for machine in machines] == ["0.1-light", "0.1-light"]

    done = applied("proxy", "upgrade", "--all", "--keep", "1", "--json")
    assert [one["release"] for one in done.json] == ["0.2-light", "0.2-light"], done.err
    assert [releases(machine) for machine in machines] == [("0.2-light", {"0.1-light", "0.2-light"})] * 2
    assert {one["enabled"] for one in applied("proxy", "list", "--json").json} == {True}

    light_releases(3, fails=True)
    done = applied("proxy", "upgrade", "--all", "--wait", "3")
    assert done.code == 1
    assert "its log ends: it does not work here" in done.err
    assert "0.2-light runs again" in done.err
    assert [releases(machine)[0] for machine in machines] == ["0.2-light", "0.2-light"]
    assert not (machines[1].root / SOFTWARE / "releases/0.3-light").exists()  # it wasn't touched any more
    assert [one["enabled"] for one in applied("proxy", "list", "--json").json] == [True, True]


def test_without_root_it_runs_as_who_logs_in_from_one_folder(
    applied: Program, new_machine: NewMachine, light_releases: Releases, configured: Path
) -> None:
    machine = new_machine(toolbox=True)
    home = machine.root / "home" / USER
    (home / "notes").write_text("mine")
    done = add(applied, machine, "p1", "--install-dir", f"/home/{USER}", user=USER)
    assert done.code == 0, done.err
    assert {user for user, _ in machine.processes()} == {1000}
    assert (home / "etc/secrets/redis").stat().st_mode & 0o777 == 0o600

    machine.stop()
    machine.new_host_key()
    machine.start()
    done = applied("proxy", "remove", "p1", "--yes")
    assert (done.code, machine.fingerprint in done.err) == (6, True)
    assert applied("proxy", "deploy", "p1", "--host-key", machine.fingerprint).code == 0
    assert applied("proxy", "remove", "p1", "--yes").code == 0
    assert sorted(path.name for path in home.iterdir()) == [".ssh", "notes"]
    assert machine.processes() == []
    assert applied("proxy", "list", "--json").json == []
