"""A vCenter to talk to, and a session there."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator

import pytest

from proxy_worker.vsphere.session import Endpoint, Patience, Session
from proxy_worker.vsphere.tasks import Waiting
from proxy_worker.vsphere.trust import Trust
from tests.simulators.vsphere.simulator import (
    PASSWORD,
    USER,
    VsphereSimulator,
    vsphere,
    vsphere_program,
    vsphere_server,
)

__all__ = ["vsphere", "vsphere_program", "vsphere_server"]

IMPATIENT = Waiting(timeout_s=30, first_pause_s=0.01, longest_pause_s=0.05)


def certificate_of(server: VsphereSimulator) -> bytes:
    """What the server shows, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((server.host, server.port)))


def endpoint_of(server: VsphereSimulator, **changes: object) -> Endpoint:
    """The simulator as an administrator would declare it, its certificate pinned."""
    settings: dict[str, object] = {
        "name": "vc1",
        "host": server.host,
        "port": server.port,
        "user": USER,
        "credential": "vc1",
        "trust": Trust(hashlib.sha256(certificate_of(server)).hexdigest()),
        "patience": Patience(total_s=2.0, first_s=0.01, longest_s=0.1),
    }
    return Endpoint(**(settings | changes))


@pytest.fixture
def endpoint(vsphere: VsphereSimulator) -> Endpoint:
    """Where the session's vCenter is."""
    return endpoint_of(vsphere)


@pytest.fixture
def session(endpoint: Endpoint) -> Iterator[Session]:
    """Logged in."""
    with Session(endpoint, PASSWORD) as opened:
        yield opened
