"""How tests reach the simulated vCenter, whose fixtures are beside it."""

from __future__ import annotations

import hashlib
import ssl

from proxy_worker.vsphere.session import Endpoint, Patience
from proxy_worker.vsphere.tasks import Waiting
from proxy_worker.vsphere.trust import Trust
from tests.simulators.vsphere.program import USER, VsphereSimulator

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
