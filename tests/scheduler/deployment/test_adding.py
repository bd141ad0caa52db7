"""What `scheduler proxy add` tells and asks before anything is put on a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.cli.conftest import Finished, Program
from tests.scheduler.deployment.conftest import add
from tests.simulators.bare_machine import BareMachine

READ_KEY = "main.key (READ key: can read every backup)"
WRITE_KEY = "main.key (write key: adds restore points, reads none)"


def key(configured: Path, kind: str) -> None:
    """The repository's key on the backup server."""
    (configured / "main.key").write_text(json.dumps({"kind": kind}))


class Answers:
    """Somebody at a terminal: answers by the beginnings of their questions, else what is proposed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answers: dict[str, Iterator[object]] = {}
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.prompt", self._prompt)
        monkeypatch.setattr("typer.confirm", self._confirm)

    def to(self, question: str, *answers: object) -> None:
        """Answer a question with these, one after the other."""
        self._answers[question] = iter(answers)

    def _prompt(self, question: str, *, default: Any = None, **_: Any) -> Any:
        sys.stderr.write(f"{question}\n")
        for beginning, answers in self._answers.items():
            if question.startswith(beginning):
                return next(answers)
        return default

    def _confirm(self, question: str, *, default: bool = False, **_: Any) -> bool:
        if question == "Put the proxy there":
            raise KeyboardInterrupt  # the review is all that is wanted
        return default


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What people answer."""
    return Answers(monkeypatch)


@pytest.fixture
def taken(applied: Program, configured: Path) -> Program:
    """A fleet that has a proxy of the name `taken`."""
    fleet = configured / "fleet.toml"
    fleet.write_text(f"{fleet.read_text()}\n[[proxy]]\nname = 'taken'\nsite = 'primary'\n")
    assert applied("apply", "-f", str(fleet)).code == 0
    return applied


def asked(scheduler: Program, machine: BareMachine, *words: str) -> Finished:
    """`scheduler proxy add`, by questions, up to its review."""
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--host-key", machine.fingerprint)
    return scheduler("proxy", "add", *words, *login, "--ssh-key", str(machine.key))


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_the_secrets_of_a_proxy_are_told_with_what_they_can_do(
    applied: Program, machine: BareMachine, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.deploying.deploy_one", lambda *_: {})
    key(configured, "write")
    done = add(applied, machine, "p1")
    assert done.code == 0, done.err
    assert f"Proxy p1 gets the secrets: {WRITE_KEY}." in done.err
    assert "warning" not in done.err
    assert "credentials" not in applied("export").out


def test_automatic_takes_no_read_key_and_says_so(
    applied: Program, machine: BareMachine, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.deploying.deploy_one", lambda *_: {})
    key(configured, "read")
    done = add(applied, machine, "p1")
    assert done.code == 0, done.err
    assert "Proxy p1 gets the secrets: none." in done.err
    assert "warning: main.key is a READ key, which can read every backup: automatic leaves it out." in done.err
    assert "credentials = []" in applied("export").out
    asked_for = add(applied, machine, "p2", "--credential", "main")
    assert asked_for.code == 0, asked_for.err
    assert f"Proxy p2 gets the secrets: {READ_KEY}." in asked_for.err
    assert "warning: main.key can read every backup" in asked_for.err


@pytest.mark.parametrize("answer", ["automatic", "main"])
def test_the_review_names_secrets_and_what_they_can_do(
    applied: Program, machine: BareMachine, configured: Path, answers: Answers, answer: str
) -> None:
    key(configured, "read")
    answers.to("Secrets that it gets: automatic (none)", answer)
    done = asked(applied, machine, "p1")
    assert f"secrets {READ_KEY if answer == 'main' else 'none'}" in squeezed(done.out + done.err)
    assert "warning: main.key is a READ key" in done.err
    assert ("warning: main.key can read every backup" in done.err) == (answer == "main")
    assert not (configured / "p1.ssh-key").exists()


@pytest.mark.parametrize(
    ("question", "bad", "why"),
    [
        ("Name of the proxy", "../evil", "'../evil' is a path, not a name: expected at most 63 letters"),
        ("Name of the proxy", "taken", "there is a proxy taken already"),
        ("Name or address of its machine", "root@10.0.0.5", "'root@10.0.0.5' isn't a machine's name or address"),
        ("Max concurrent tasks", 0, "expected at least 1"),
        ("Secrets that it gets", "/etc/main.key", "'/etc/main.key' is a path, not a name"),
        ("Connected datastores", "ds1=here", "ds1=here: expected ds1=/folder"),
    ],
)
def test_a_bad_answer_is_asked_again_at_its_own_question(
    taken: Program, machine: BareMachine, answers: Answers, *, question: str, bad: object, why: str
) -> None:
    good = {
        "Name of the proxy": "p1",
        "Name or address of its machine": "127.0.0.1",
        "Max concurrent tasks": 1,
        "Secrets that it gets": "automatic",
        "Connected datastores": "automatic",
    }
    answers.to(question, bad, good[question])
    done = asked(taken, machine, "p1")
    assert why in squeezed(done.err)
    assert done.err.count(question) == 2
    assert not {"pattern", "--datastore"} & set(done.err.split())
    assert "6 of 7: Review" in done.err


def test_a_login_given_as_a_path_is_asked_again(
    applied: Program, machine: BareMachine, configured: Path, answers: Answers
) -> None:
    (configured / "mine.ssh-key").write_bytes(machine.key.read_bytes())
    answers.to("Secret with its SSH key", "~/.ssh/proxies", "none", "mine")
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--host-key", machine.fingerprint)
    done = applied("proxy", "add", "p1", *login)
    assert "'~/.ssh/proxies' is a path, not a name" in done.err
    assert "`scheduler proxy add --ssh-key FILE`" in done.err
    assert f"{configured} has no none.ssh-key or none.ssh-password" in done.err
    assert "pattern" not in done.err
    assert "6 of 7: Review" in done.err


VAULT = """
[[repository]]
name = "vault"
location = "proxyfleet://127.0.0.1:7443/vault"
site = "primary"
hardened = true
"""


@pytest.fixture
def beside_a_vault(applied: Program, configured: Path) -> Program:
    """A fleet with a hardened repository on the new proxy's machine."""
    fleet = configured / "fleet.toml"
    fleet.write_text(fleet.read_text() + VAULT)
    done = applied("apply", "-f", str(fleet))
    assert done.code == 0, done.err
    return applied


def test_beside_a_hardened_repository_a_proxy_has_network_mode_alone(
    beside_a_vault: Program, machine: BareMachine, answers: Answers
) -> None:
    answers.to("Transport mode (network)", "direct_storage", "automatic", "network")
    done = asked(beside_a_vault, machine, "p1")
    said = squeezed(done.out + done.err)
    for mode in ("automatic", "storage_snapshot", "direct_storage", "virtual_appliance"):
        assert (
            f"{mode}: unavailable, its machine keeps hardened repository 'vault', and modes beside network" in said
        )
    assert "network: unavailable" not in said
    assert said.count("expected network") == 2
    assert "transport mode network" in said
    assert "5 of 7: Traffic rules None holds for what it exchanges with repositories." in said


def test_beside_a_hardened_repository_no_other_mode_can_be_declared(
    beside_a_vault: Program, machine: BareMachine, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.deploying.deploy_one", lambda *_: {})
    refused = add(beside_a_vault, machine, "p1", "--transport-mode", "direct_storage")
    assert refused.code == 2
    assert (
        "--transport-mode direct_storage is unavailable: its machine keeps hardened repository 'vault'"
        in squeezed(refused.err)
    )
    by_name = ("--host", "localhost", "--host-key", machine.fingerprint, "--transport-mode", "virtual_appliance")
    refused = beside_a_vault("proxy", "add", "p1", *by_name, "--yes")
    assert "--transport-mode virtual_appliance is unavailable" in squeezed(refused.err), "localhost is that machine"
    added = add(beside_a_vault, machine, "p1")
    assert added.code == 0, added.err
    assert "Transport mode: network only, since its machine keeps hardened repository 'vault'" in squeezed(
        added.err
    )
    exported = beside_a_vault("export").out
    assert 'transport_mode = "network"' in exported
    assert "hardened = true" in exported

    fleet = configured / "fleet.toml"
    fleet.write_text(exported.replace('transport_mode = "network"', 'transport_mode = "virtual_appliance"'))
    refused = beside_a_vault("apply", "-f", str(fleet))
    assert refused.code == 3
    assert (
        "proxy 'p1', key 'transport_mode': 'virtual_appliance' is not possible on the machine of hardened "
        "repository 'vault'; expected 'network'" in squeezed(refused.err)
    )


def test_only_a_gateway_keeps_a_repository_hardened(applied: Program) -> None:
    refused = applied("repository", "add", "vault", "--location", "/vault", "--hardened")
    assert refused.code == 3
    assert "only a gateway keeps one hardened" in refused.err
    assert applied("repository", "add", "vault", "--location", "proxyfleet://v/vault", "--hardened").code == 0
    assert "can't be changed or deleted for a while" in squeezed(applied("repository", "show", "vault").out)
