"""A bare machine becomes a proxy: from nothing to its first task, and back to nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scheduler.cli.conftest import Program
from tests.scheduler.deployment.conftest import Releases, add
from tests.simulators.bare_machine import BareMachine

BIN = Path(sys.executable).parent
PASSPHRASE = "whoever has this reads it all"
SECTORS = 2048
VMX = """.encoding = "UTF-8"
displayName = "web01"
uuid.bios = "56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 01"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
"""
VMDK = f"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="vmfs"
RW {SECTORS} VMFS "web01-flat.vmdk"
"""


def make_vm(datastore: Path) -> None:
    """A VM with a small disk."""
    folder = datastore / "web01"
    folder.mkdir(parents=True)
    (folder / "web01.vmx").write_text(VMX)
    (folder / "web01.vmdk").write_text(VMDK)
    (folder / "web01-flat.vmdk").write_bytes(os.urandom(SECTORS * 512))


def make_repository(place: Path, secrets: Path) -> None:
    """A repository whose passphrase stays here, and a write key for proxies."""
    (secrets / "main.passphrase").write_text(PASSPHRASE)
    command = [BIN / "proxy-worker", "repository"]
    phrase = ["--passphrase-file", secrets / "main.passphrase"]
    subprocess.run([*command, "init", place, *phrase], check=True, capture_output=True)
    export = [*command, "keys", "export-write", place, *phrase, "--out", secrets / "main.key"]
    subprocess.run(export, check=True, capture_output=True)


def belong_to(place: Path, machine: BareMachine, account: str) -> None:
    """Give a folder to a user of a machine."""
    line = next(one for one in (machine.root / "etc/passwd").read_text().splitlines() if one.startswith(account))
    user, group = (int(field) for field in line.split(":")[2:4])
    for path in (place, *place.rglob("*")):
        os.chown(path, user, group)


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """`scheduler serve`, without a proxy of its own."""
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen([BIN / "scheduler", "serve", "--no-local-proxy"], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_a_bare_machine_becomes_a_proxy_backs_up_a_disk_and_is_bare_again(
    applied: Program, new_machine: Callable[..., BareMachine], configured: Path
) -> None:
    machine = new_machine()
    repository = machine.root / "backup/main"
    make_vm(machine.root / "mnt/ds1")
    make_repository(repository, configured)
    with serving(configured):
        done = add(applied, machine, "p1", "--description", "in the cellar", "--json")
        assert done.code == 0, done.err
        assert [one["state"] for one in done.json["steps"]] == ["done"] * len(done.json["steps"])
        belong_to(machine.root / "backup", machine, "proxyfleet")

        shown = applied("proxy", "show", "p1", "--json").json
        assert (shown["description"], shown["credentials"]) == ("in the cellar", {"main": "write"})
        assert shown["datastores"] == {"ds1": ["direct_storage"]}
        assert shown["server"]["host_key"] == machine.fingerprint
        wait_until(lambda: applied("proxy", "show", "p1", "--json").json["state"] == "up", "it is up")
        run = applied("job", "start", "nightly", "--wait")
        assert run.code == 0, run.err + (configured / "serve.log").read_text()

        least_privileges(machine)
        assert applied("proxy", "deploy", "p1", "--json").json[0]["restarted"] is False
        (configured / "main.key").unlink()  # what it may get is not what it must have
        done = applied("proxy", "remove", "p1", "--yes")
        assert done.code == 0, done.err
    assert machine.processes() == []
    left = {path.name for folder in ("opt", "etc", "var/lib") for path in (machine.root / folder).iterdir()}
    assert not any("proxyfleet" in name for name in left)
    assert (repository / "config").exists()


def least_privileges(machine: BareMachine) -> None:
    """Only the supervisor is root's, no secret is on a command line, and only its owner reads one."""
    secrets = machine.root / "etc/proxyfleet-proxy/secrets"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in secrets.iterdir()} == {
        "main.key": "0o600",
        "redis": "0o600",
    }
    assert not (secrets / "main.passphrase").exists()
    owner = secrets.stat().st_uid
    running = machine.processes()
    assert {user for user, command in running if "supervisor.py" not in command} == {owner}
    assert owner != 0
    planted = [PASSPHRASE, max(re.findall(r"[\w+/=-]+", (secrets / "main.key").read_text()), key=len)]
    assert not any(secret in command for _, command in running for secret in planted)
    assert {path.name for path in (machine.root / "etc/proxyfleet-proxy").iterdir()} == {"proxy.toml", "secrets"}
    settings = (machine.root / "etc/proxyfleet-proxy/proxy.toml").read_text()
    assert not any(secret in settings for secret in planted)


@pytest.fixture
def with_systemd(new_machine: Callable[..., BareMachine]) -> BareMachine:
    """A machine on which a stand-in for systemctl starts what the unit says, and writes down what it was asked."""
    machine = new_machine(toolbox=True, first="SetEnv PATH=/tools:/usr/bin:/usr/sbin:/bin:/sbin")
    (machine.root / "run/systemd/system").mkdir(parents=True)
    (machine.root / "etc/systemd/system").mkdir(parents=True)
    tools = machine.root / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text((Path(__file__).parents[2] / "simulators/systemctl").read_text())
    (tools / "systemctl").chmod(0o755)
    return machine


def test_systemd_keeps_it_running_where_there_is_one(
    applied: Program, with_systemd: BareMachine, light_releases: Releases
) -> None:
    done = add(applied, with_systemd, "p1", "--json")
    assert done.code == 0, done.err
    assert applied("proxy", "show", "p1", "--json").json["server"]["kept_running_by"] == "systemd"
    units = with_systemd.root / "etc/systemd/system"
    unit = units / "proxyfleet-proxy-p1.service"
    special = (units / "proxyfleet-proxy-p1.service.d/deployed.conf").read_text()
    assert "NoNewPrivileges=yes" in unit.read_text()
    assert "CapabilityBoundingSet=\n" in unit.read_text()
    assert 'ReadWritePaths="/var/lib/proxyfleet-proxy" "-/backup/main"' in special
    assert {user for user, _ in with_systemd.processes()} != {0}
    light_releases(2)
    assert applied("proxy", "upgrade", "p1").code == 0
    assert applied("proxy", "remove", "p1", "--yes").code == 0
    assert list(units.iterdir()) == []
    asked = (with_systemd.root / "tools/asked").read_text().splitlines()
    assert [one for one in asked if one.split()[0] in {"enable", "restart", "stop", "disable"}] == [
        *("enable --quiet proxyfleet-proxy-p1.service", "restart proxyfleet-proxy-p1.service"),
        *("disable --quiet proxyfleet-proxy-p1.service", "stop proxyfleet-proxy-p1.service"),
        *("enable --quiet proxyfleet-proxy-p1.service", "restart proxyfleet-proxy-p1.service"),
        *("disable --quiet proxyfleet-proxy-p1.service", "stop proxyfleet-proxy-p1.service"),
    ]


def test_a_server_is_declared_exported_and_applied_again(applied: Program, configured: Path) -> None:
    server = {
        "host": "10.0.0.5",
        "credential": "proxies",
        "host_key": f"SHA256:{'A' * 43}",
        "datastores": {"ds1": {"path": "/mnt/ds1"}},
        "credentials": ["main"],
        "failover_to_network": False,
    }
    text = (
        configured / "fleet.toml"
    ).read_text() + '\n[[proxy]]\nname = "p1"\nsite = "primary"\ndescription = "new"\n'
    text += "[proxy.server]\n" + "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in server.items() if key != "datastores"
    )
    text += 'instant_restore = { host = "10.1.2.9", clients = ["10.1.2.0/24"] }\n'
    (configured / "fleet.toml").write_text(f'{text}[proxy.server.datastores.ds1]\npath = "/mnt/ds1"\n')
    assert applied("apply", "-f", str(configured / "fleet.toml")).code == 0
    exported = applied("export").out
    assert 'clients = ["10.1.2.0/24"]' in exported
    (configured / "fleet.toml").write_text(exported)
    assert applied("apply", "-f", str(configured / "fleet.toml"), "--json").json["changes"] == []
    assert applied("proxy", "show", "p1", "--json").json["server"]["state"] == "declared"
    (configured / "fleet.toml").write_text(exported.replace("SHA256:", "MD5:"))
    done = applied("apply", "-f", str(configured / "fleet.toml"))
    assert (done.code, "proxy 'p1', key 'server.host_key'" in done.err) == (3, True), done.err
