"""The vCenter to ask: the one of VCENTER_URL, or else a simulated one with a VM of its own."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Endpoint, Session
from proxy_worker.vsphere.trust import Trust
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator, running
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import MIB, make_vm

TEST_VM = "throw-away"


@dataclass(frozen=True)
class Vcenter:
    """Where it is, and who may log in."""

    endpoint: Endpoint
    password: str
    test_vm: str | None
    """The VM that tests may touch."""
    simulator: VsphereSimulator | None


def real_vcenter(url: str) -> Vcenter:
    """The vCenter of `https://user@host:port` and the other VCENTER_ variables; see docs/vsphere.md."""
    parts = urllib.parse.urlsplit(url)
    password_file = os.environ.get("VCENTER_PASSWORD_FILE")
    assert parts.scheme == "https", "VCENTER_URL must look like https://user@host"
    assert parts.hostname, "VCENTER_URL must look like https://user@host"
    assert parts.username, "VCENTER_URL must name the account: https://user@host"
    assert password_file, "VCENTER_PASSWORD_FILE must name the file with the account's password"
    endpoint = Endpoint(
        name="real",
        host=parts.hostname,
        port=parts.port or 443,
        user=urllib.parse.unquote(parts.username),
        credential="real",
        trust=Trust(os.environ.get("VCENTER_THUMBPRINT")),
    )
    password = Path(password_file).read_text().removesuffix("\n")
    return Vcenter(endpoint, password, os.environ.get("VCENTER_TEST_VM"), simulator=None)


@pytest.fixture(scope="session")
def vcenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcenter]:
    url = os.environ.get("VCENTER_URL")
    if url:
        yield real_vcenter(url)
        return
    program: Path = request.getfixturevalue("vsphere_program")
    with running(program, tmp_path_factory.mktemp("vcenter")) as server:
        found = Vcenter(endpoint_of(server), PASSWORD, TEST_VM, server)
        with Session(found.endpoint, PASSWORD) as session:
            make_vm(session, 3 * MIB, MIB, name=TEST_VM)
        yield found


@pytest.fixture
def session(vcenter: Vcenter) -> Iterator[Session]:
    """Logged in."""
    with Session(vcenter.endpoint, vcenter.password) as opened:
        yield opened


@pytest.fixture
def test_vm(vcenter: Vcenter, session: Session) -> Vm:
    """The VM that tests may touch; must have no snapshots."""
    found = [vm for vm in read_inventory(session).vms.values() if vm.name == vcenter.test_vm]
    assert len(found) == 1, f"{len(found)} VMs are called {vcenter.test_vm!r} (VCENTER_TEST_VM)"
    assert not found[0].snapshots, f"{vcenter.test_vm} has snapshots: remove them, or name another VM"
    return found[0]
