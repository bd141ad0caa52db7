"""The target's end while it listens: until the disk is sealed, the control says stop, or the source is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress, Receiver
from proxy_worker.contract.names import TransportMode
from proxy_worker.link.identity import Identity
from proxy_worker.link.server import Limits, LinkServer
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.mover.statistics import RateMeter
from proxy_worker.program.listening import ListenError
from proxy_worker.replication.errors import SourceAbsentError
from proxy_worker.replication.receiving import Desk
from proxy_worker.replication.reception import Reception

POLL_S: Final = 0.2
REPORT_EVERY_S: Final = 1.0
_SPARE_CALLS: Final = 8
"""Beyond one for each stream: questions, and calls that a cut has left behind."""
_CALLS_OF_A_CUT: Final = 3
_GRACE_S: Final = 5.0
_LINGER_S: Final = 60.0
"""How long a target whose disk is sealed waits to hear that its source knows."""


@contextmanager
def listening(desk: Desk, identity: Identity, *, host: str, ports: range, streams: int) -> Iterator[int]:
    """Answer a source, at the first port that is free. Raises `ListenError`, `LinkCertificateError`."""
    calls = streams * _CALLS_OF_A_CUT + _SPARE_CALLS
    limits = Limits(connections=calls, calls=calls, calls_per_peer=calls)
    server = _first_free(desk, identity, host, ports, limits)
    server.start()
    try:
        yield server.port
    finally:
        server.stop(_GRACE_S)


def receive(reception: Reception, desk: Desk, ready: Receiver, control: Control, *, absent_after_s: float) -> None:
    """Return once the disk is sealed, and its source knows or has been silent for long.

    Raises `CancelledError`, `SourceAbsentError`, and what the source was told that ended the session.
    """
    rate = RateMeter()
    reported_s = sealed_s = 0.0
    while not desk.left.wait(POLL_S):
        now_s = time.monotonic()
        if reception.sealed_root is not None:
            sealed_s = sealed_s or now_s
            if now_s - sealed_s > _LINGER_S:
                return
            continue
        if control.verdict() is Verdict.STOP:
            raise CancelledError("the replica's disk was given up", why="its run was cancelled, or its proxy stops")
        if desk.failure is not None:
            raise desk.failure
        if now_s - desk.heard_at_s > absent_after_s:
            raise SourceAbsentError(
                f"{reception.name} is only partly written",
                why=f"nothing was heard of its source for {absent_after_s:.0f} s",
                remedy="Does the network let the source's proxy through to this one?",
            )
        if now_s - reported_s >= REPORT_EVERY_S:
            reported_s = now_s
            control.report(_progress(reception, ready, rate, now_s))


def _progress(reception: Reception, ready: Receiver, rate: RateMeter, now_s: float) -> DiskProgress:
    done = reception.done
    return DiskProgress(
        size_bytes=done.size_bytes,
        processed_bytes=done.looked_at_bytes,
        read_bytes=done.compared_bytes,
        stored_bytes=done.written_bytes,
        rate=round(rate.rate(now_s, done.looked_at_bytes), 1),
        mode=TransportMode.DIRECT_STORAGE,
        ready=ready,
    )


def _first_free(desk: Desk, identity: Identity, host: str, ports: range, limits: Limits) -> LinkServer:
    for port in ports[:-1]:
        try:
            return LinkServer(desk.methods, identity, host=host, port=port, limits=limits)
        except ListenError:
            continue
    return LinkServer(desk.methods, identity, host=host, port=ports[-1], limits=limits)
