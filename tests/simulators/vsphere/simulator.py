"""The simulated vCenter as fixtures, which every test may take; `program` has all that needs no pytest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.vsphere.session import Endpoint, Session
from tests.simulators.vsphere.program import (
    GOPATH,
    NBDKIT,
    PASSWORD,
    SOURCES,
    USER,
    GuestDisk,
    VsphereSimulator,
    build,
    running,
)
from tests.vsphere.conftest import endpoint_of

__all__ = ["GOPATH", "NBDKIT", "PASSWORD", "SOURCES", "USER", "GuestDisk", "VsphereSimulator", "build", "running"]


@pytest.fixture(scope="session")
def vsphere_program() -> Path:
    """The simulator's program, built once for all sessions that have the same sources."""
    return build()


@pytest.fixture(scope="module")
def vsphere_server(vsphere_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VsphereSimulator]:
    """One vCenter for the module; take `vsphere` to find it untroubled."""
    with running(vsphere_program, tmp_path_factory.mktemp("vsphere")) as simulator:
        yield simulator


@pytest.fixture
def vsphere(vsphere_server: VsphereSimulator) -> VsphereSimulator:
    """The module's vCenter, with nothing going wrong and no calls counted."""
    vsphere_server.reset()
    return vsphere_server


@pytest.fixture
def endpoint(vsphere: VsphereSimulator) -> Endpoint:
    """Where it is."""
    return endpoint_of(vsphere)


@pytest.fixture
def session(endpoint: Endpoint) -> Iterator[Session]:
    """Logged in there."""
    with Session(endpoint, PASSWORD) as opened:
        yield opened
