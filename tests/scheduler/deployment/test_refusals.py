"""Machines that can't be proxies, or may not be the right ones, are refused before anything is put there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.cli.ssh_key_file import kept
from scheduler.deployment.errors import ServerTakenError
from tests.scheduler.cli.conftest import Finished, Program
from tests.scheduler.deployment.conftest import add
from tests.simulators.bare_machine import PASSWORD, USER, BareMachine

NewMachine = Callable[..., BareMachine]


@pytest.fixture
def new_key(tmp_path: Path) -> Path:
    """A private key that no machine lets in."""
    path = tmp_path / "another"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def refused(done: Finished, code: int, *words: str) -> None:
    assert done.code == code, done.err
    for word in words:
        assert word in done.err


def test_a_host_key_is_shown_and_not_trusted_until_somebody_says_so(applied: Program, machine: BareMachine) -> None:
    done = applied("proxy", "add", "p1", "--host", "127.0.0.1", "--port", str(machine.port), "--yes")
    refused(done, 6, f"it shows {machine.fingerprint}, which nobody has confirmed", "ssh-keygen -lf", "--host-key")
    assert applied("proxy", "list", "--json").json == []


def test_a_host_key_that_changed_is_refused_with_both_fingerprints(
    applied: Program, new_machine: NewMachine
) -> None:
    machine = new_machine()
    before = machine.fingerprint
    machine.stop()
    machine.new_host_key()
    machine.start()
    done = add(applied, machine, "p1", "--host-key", before)
    refused(done, 6, f"host key of 127.0.0.1:{machine.port}", before, machine.fingerprint, "nothing was sent to it")


def test_a_machine_may_be_pinned_by_any_of_its_host_keys(applied: Program, new_machine: NewMachine) -> None:
    machine = new_machine(first="HostKey /etc/ssh/rsa_key")
    machine.stop()
    rsa = machine.root / "etc/ssh/rsa_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    machine.start()
    shown = subprocess.run(["ssh-keygen", "-lf", rsa], capture_output=True, text=True, check=True).stdout.split()[1]
    done = add(applied, machine, "p1", "--host-key", shown, "--redis-url", "redis://127.0.0.1:1/0")
    refused(done, 3, "it doesn't reach Redis")  # past the host key


def test_windows_is_refused_with_the_reason(applied: Program, new_machine: NewMachine) -> None:
    machine = new_machine(first="VersionAddendum for_Windows_8.1\nForceCommand exit 1")
    refused(add(applied, machine, "p1"), 3, "it runs Windows", "Use a Linux machine")


def test_a_machine_without_python_is_refused_with_what_to_install(
    applied: Program, new_machine: NewMachine
) -> None:
    machine = new_machine(first="SetEnv PATH=/tools")
    (machine.root / "tools").mkdir()
    for tool in ("sh", "uname", "id"):
        (machine.root / "tools" / tool).symlink_to(f"/usr/bin/{tool}")
    refused(add(applied, machine, "p1"), 3, "it has no Python, and 3.11 is the least", "apt-get install python3")


def test_who_may_not_become_root_needs_a_folder(applied: Program, machine: BareMachine) -> None:
    refused(add(applied, machine, "p1", user=USER), 6, f"{USER} is not root there", "--install-dir")


def test_folders_that_no_proxy_made_are_left_alone(applied: Program, new_machine: NewMachine) -> None:
    machine = new_machine()
    theirs = machine.root / "srv/app/etc"
    theirs.mkdir(parents=True)
    (theirs / "app.conf").touch()
    done = add(applied, machine, "p1", "--install-dir", "/srv/app")
    refused(done, ServerTakenError.exit_code, "/srv/app/etc exists there, and no proxy made it", "--install-dir")
    assert theirs.stat().st_mode & 0o777 == 0o755


def test_redis_has_to_be_reached_from_there(applied: Program, machine: BareMachine) -> None:
    done = add(applied, machine, "p1", "--redis-url", "redis://127.0.0.1:1/0")
    refused(done, 3, "it doesn't reach Redis: 127.0.0.1:1: Connection refused", "--redis-url")


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("/mnt/none", "there is no folder /mnt/none"),
        ("/mnt/private", "proxyfleet may not read /mnt/private"),
        ("nbd://127.0.0.1:1/{path}", "127.0.0.1:1: Connection refused"),
    ],
)
def test_datastores_are_tried_from_there(applied: Program, machine: BareMachine, way: str, why: str) -> None:
    (machine.root / "mnt/private").mkdir(mode=0o700, exist_ok=True)
    refused(add(applied, machine, "p1", "--datastore", f"ds1={way}"), 3, f"it doesn't reach datastore ds1: {why}")


def test_logins_that_fail_say_with_what(applied: Program, machine: BareMachine, configured: Path) -> None:
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--host-key", machine.fingerprint, "--yes")
    refused(applied("proxy", "add", "p1", *login, "--ssh-credential", "none"), 6, "none.ssh-key", "chmod 600")
    (configured / "mine.ssh-password").write_text("wrong")
    refused(applied("proxy", "add", "p1", *login, "--ssh-credential", "mine"), 6, "refused with the secret 'mine'")
    (configured / "mine.ssh-password").write_text(PASSWORD)
    done = applied("proxy", "add", "p1", *login, "--ssh-credential", "mine", "--redis-url", "redis://127.0.0.1:1/0")
    refused(done, 3, "it doesn't reach Redis")  # it was let in


def test_a_machine_that_does_not_answer_is_named(applied: Program) -> None:
    done = applied(
        "proxy", "add", "p1", "--host", "127.0.0.1", "--port", "1", "--yes", "--host-key", f"SHA256:{'A' * 43}"
    )
    refused(done, 1, "server 127.0.0.1:1", "Connect call failed", "Check that it is up")


def ssh_secrets(folder: Path) -> dict[str, bytes]:
    """The SSH secrets that lie in a folder and below."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if ".ssh-" in path.name}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "-evil", "a b"])
def test_a_bad_name_is_called_so_before_a_key_is_written_anywhere(
    applied: Program, machine: BareMachine, configured: Path, name: str
) -> None:
    login = ("--host", "127.0.0.1", "--ssh-key", str(machine.key), "--yes")
    done = applied("proxy", "add", *login, "--", name)
    assert done.code == 2
    said = " ".join(done.err.replace("│", " ").split())
    assert "bad name for the proxy" in said
    assert "pattern" not in said
    assert "--credential" not in said
    assert ssh_secrets(configured) == {}
    assert not (configured.parent / "evil.ssh-key").exists()


def test_a_secret_that_is_there_is_never_overwritten(
    applied: Program, machine: BareMachine, configured: Path
) -> None:
    for kind in ("key", "password"):
        secret = configured / f"p1.ssh-{kind}"
        secret.write_text("precious")
        refused(add(applied, machine, "p1"), 9, f"{secret} is there already", "--ssh-credential p1")
        assert ssh_secrets(configured) == {secret.name: b"precious"}
        secret.unlink()


def test_the_key_of_a_proxy_whose_name_is_taken_stays(
    applied: Program, machine: BareMachine, configured: Path
) -> None:
    fleet = configured / "fleet.toml"
    fleet.write_text(f"{fleet.read_text()}\n[[proxy]]\nname = 'p1'\nsite = 'primary'\n")
    assert applied("apply", "-f", str(fleet)).code == 0
    (configured / "p1.ssh-key").write_text("precious")
    refused(add(applied, machine, "p1"), 9, "that name is taken")
    assert ssh_secrets(configured) == {"p1.ssh-key": b"precious"}


def test_a_file_that_is_no_private_key_is_refused(applied: Program, machine: BareMachine, configured: Path) -> None:
    public = machine.key.with_suffix(".pub")
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--host-key", machine.fingerprint, "--yes")
    done = applied("proxy", "add", "p1", *login, "--ssh-key", str(public))
    refused(done, 6, f"SSH key {public}", "can't be used as a private key", "not the .pub file")
    assert ssh_secrets(configured) == {}


def test_a_refused_add_leaves_no_copy_of_the_key(
    applied: Program, machine: BareMachine, configured: Path, new_key: Path
) -> None:
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--host-key", machine.fingerprint, "--yes")
    refused(applied("proxy", "add", "p1", *login, "--ssh-key", str(new_key)), 6, "login of root", "was refused")
    refused(add(applied, machine, "p1", "--redis-url", "redis://127.0.0.1:1/0"), 3, "it doesn't reach Redis")
    refused(add(applied, machine, "p1", "--credential", "none"), 6, "secret 'none'")
    assert ssh_secrets(configured) == {}


def _interrupted_with(secret: Path) -> None:
    assert secret.stat().st_mode & 0o777 == 0o600
    raise KeyboardInterrupt


def test_a_key_is_kept_for_its_owner_alone_and_goes_when_the_proxy_is_not_declared(
    machine: BareMachine, tmp_path: Path
) -> None:
    secret = tmp_path / "p1.ssh-key"
    with pytest.raises(KeyboardInterrupt), kept(machine.key, "p1", tmp_path):
        _interrupted_with(secret)
    assert not secret.exists()
    with kept(machine.key, "p1", tmp_path):
        pass
    with kept(machine.key, "p1", tmp_path):  # the same again
        pass
    assert secret.read_bytes() == machine.key.read_bytes()
