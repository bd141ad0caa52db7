"""A reception that listens in this process, behind a wire that a test cuts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from ops.demo.valkey import free_port
from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.link.client import Patience
from proxy_worker.link.identity import Identity
from proxy_worker.mover.control import Unattended
from proxy_worker.replication.linked_end import LinkedEnd
from proxy_worker.replication.listening import listening, receive
from proxy_worker.replication.receiving import Desk
from proxy_worker.replication.reception import Reception
from tests.gateway.serving import HERE, Fleet
from tests.replication.sites import Target
from tests.surviving.relay import Relay

TARGET, SOURCE = "proxy-dr", "proxy-1"
QUICK = Patience(first_pause_s=0.05, longest_pause_s=0.2, in_all_s=120, first_contact_s=120)


def shown(fleet: Fleet, name: str) -> Identity:
    """The certificate of a proxy, issued when it is first asked for."""
    issued = Identity.beside(fleet.folder / f"{name}.pem")
    return issued if issued.certificate.exists() else fleet.identity(name)


@dataclass
class Listening:
    """A target that listens for one session."""

    fleet: Fleet
    reception: Reception
    relay: Relay
    key: bytes
    received: Future[None]

    def end(
        self,
        identity: Identity | None = None,
        *,
        proxy: str = TARGET,
        session: str = "session",
        streams: int = 5,
        level: CompressionLevel = CompressionLevel.OPTIMAL,
        patience: Patience = QUICK,
        given_up: threading.Event | None = None,
    ) -> LinkedEnd:
        """What a source has of it, the right one by default."""
        return LinkedEnd(
            Receiver(proxy=proxy, host=HERE, port=self.relay.port),
            session,
            identity or shown(self.fleet, SOURCE),
            streams=streams,
            level=level,
            patience=patience,
            given_up=given_up or threading.Event(),
        )


@contextmanager
def listens(fleet: Fleet, target: Target, *, absent_after_s: float = 600, streams: int = 5) -> Iterator[Listening]:
    """Receive one disk, as a target's task does."""
    identity = shown(fleet, TARGET)
    with target.reception() as (reception, key):
        desk = Desk(reception, key, session="session", source=SOURCE)
        port = free_port()
        with (
            listening(desk, identity, host=HERE, ports=range(port, port + 10), streams=streams) as port,
            ThreadPoolExecutor(1) as executor,
        ):
            relay = Relay(port)
            ready = Receiver(proxy=TARGET, host=HERE, port=port)
            received = executor.submit(receive, reception, desk, ready, Unattended(), absent_after_s=absent_after_s)
            try:
                yield Listening(fleet, reception, relay, key, received)
            finally:
                desk.left.set()
                relay.close()
