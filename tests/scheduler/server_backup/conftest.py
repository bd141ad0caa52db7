"""A server to back up: its folders, its database with a bit of everything, and a cheap seal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.configuration import SchedulerConfiguration, load_configuration
from scheduler.server_backup import sealing
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Job, Repository, ServiceMark, Site, Vm
from scheduler.state.store import State, open_state

SECRET = "planted-secret-of-the-server"


@pytest.fixture(autouse=True)
def cheap_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_COST", 8)


@pytest.fixture
def configuration(tmp_path: Path) -> SchedulerConfiguration:
    """A configuration with files in every place that they can be in."""
    server = tmp_path / "server"
    (server / "state/pki").mkdir(parents=True)
    (server / "state/local-proxy").mkdir()
    (server / "secrets").mkdir()
    (server / "elsewhere").mkdir()
    (server / "state/signing.key").write_text(SECRET)
    (server / "state/signing.key").chmod(0o600)
    (server / "state/pki/ca.pem").write_text("ca")
    (server / "state/local-proxy/instance").write_text("this machine's own")
    (server / "secrets/main.passphrase").write_text("the passphrase\n")
    (server / "elsewhere/ca.pem").write_text("Redis' own")
    (server / "scheduler.toml").write_text(
        'state_dir = "state"\nsecrets_dir = "secrets"\n[redis]\nurl = "rediss://redis:6379/0"\n'
        'ca_file = "elsewhere/ca.pem"\n[local_proxy]\nsite = "state"\n[server_backup]\nrepository = "main"\n'
    )
    return load_configuration(server / "scheduler.toml", {})


@pytest.fixture
def state(configuration: SchedulerConfiguration) -> Iterator[State]:
    """Its database."""
    opened = open_state(configuration.database, migrate=True)
    with opened.write() as session:
        session.add(ServiceMark(id=1, epoch=7, installation="abc"))
        session.add(Site(name="primary"))
        session.add(Repository(name="main", location="/backup", site="primary", credential="main"))
        session.add(Job(name="nightly", vms=("web*",), repository="main"))
        session.add_all(Vm(name=f"vm{number}", disks=()) for number in range(2500))
        session.flush()
        ask_for_run(session, "nightly", now=1e9)
    yield opened
    opened.close()
