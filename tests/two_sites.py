"""Two sites: network namespaces joined by a link that is narrow and long, and that a test cuts. Needs root.

    primary 10.77.0.1 ── veth, tbf of so many Mbit/s each way ── 10.77.0.2 remote

Whatever a thread starts while it is inside of a site is in that site's network, and reaches the other by the link
alone. Programs listen on 127.0.0.1 there; the other site reaches them where `Sites.reach` says, with the delay of
the link (the kernels that tests run on may lack netem).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.simulators.loop_devices import run
from tests.surviving.relay import Relay, Wire

_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PREFIX: Final = 24
_DEVICE: Final = "wan"
_BURST: Final = "64kb"
_QUEUE: Final = "50ms"
_NUMBERS: Final = itertools.count()


@dataclass(frozen=True)
class Site:
    """One of the two."""

    name: str
    network: str
    """Its name for `ip netns`."""
    address: str
    """At the link."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and the threads and processes that it starts, be in the site's network."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            with Path("/run/netns", self.network).open("rb") as there:
                _set_network(there.fileno())
            try:
                yield
            finally:
                _set_network(home.fileno())

    def sent_bytes(self) -> int:
        """How much it has ever put on the link, headers included."""
        [shown] = json.loads(run("ip", "-netns", self.network, "-json", "-statistics", "link", "show", _DEVICE))
        sent: int = shown["stats64"]["tx"]["bytes"]
        return sent


class Checkpoint:
    """Lets through a relay what `passes` lets, and once it doesn't, nothing at all until told to: whoever waits for
    it is never too late."""

    def __init__(self, relay: Relay, passes: Callable[[bytes], bool]) -> None:
        self._let_through = passes
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._open = threading.Event()
        relay.overheard = self._passes

    @classmethod
    def after_bytes(cls, relay: Relay, count: int) -> Self:
        """Lets so many bytes through."""
        left_bytes = count

        def passes(data: bytes) -> bool:
            nonlocal left_bytes
            left_bytes -= len(data)
            return left_bytes >= 0

        return cls(relay, passes)

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is held up here."""
        return self._reached.wait(timeout_s)

    def open(self) -> None:
        """Let everything through from now on."""
        self._open.set()

    def _passes(self, data: bytes) -> None:
        with self._lock:
            held = self._reached.is_set() or not self._let_through(data)
            if held:
                self._reached.set()
        if held:
            self._open.wait()


class Sites:
    """Both, and what joins them."""

    def __init__(self, primary: Site, remote: Site, delay_s: float) -> None:
        self.primary = primary
        self.remote = remote
        self._delay_s = delay_s
        self._relays: list[tuple[Site, Relay]] = []

    def reach(self, site: Site, port: int, *, own_port: int = 0) -> Relay:
        """Where the other site finds a port of 127.0.0.1 of this one."""
        with site.entered():
            relay = Relay(port, host=site.address, own_port=own_port, delay_s=self._delay_s)
        self._relays.append((site, relay))
        return relay

    def cut(self) -> None:
        """Nothing crosses, and connections end."""
        run("ip", "-netns", self.primary.network, "link", "set", _DEVICE, "down")
        for _, relay in self._relays:
            relay.wire = Wire.CUT

    def mend(self) -> None:
        """The link is there again."""
        run("ip", "-netns", self.primary.network, "link", "set", _DEVICE, "up")
        for site, relay in self._relays:
            with site.entered():
                relay.wire = Wire.WHOLE

    def close(self) -> None:
        """End every relay."""
        for _, relay in self._relays:
            relay.close()


@contextmanager
def two_sites(*, mbit_s: int, delay_s: float = 0.0) -> Iterator[Sites]:
    """Two sites until the block ends, joined by a link of so much each way, `delay_s` long each way."""
    mark = f"sites-{os.getpid()}-{next(_NUMBERS)}"
    primary = Site("primary", f"{mark}-primary", "10.77.0.1")
    remote = Site("remote", f"{mark}-remote", "10.77.0.2")
    made: list[Site] = []
    sites = Sites(primary, remote, delay_s)
    try:
        for site in (primary, remote):
            run("ip", "netns", "add", site.network)
            made.append(site)
        ends = (_DEVICE, "netns", primary.network, "type", "veth", "peer", "name", _DEVICE, "netns", remote.network)
        run("ip", "link", "add", *ends)
        for site in made:
            inside = ("-netns", site.network)
            run("ip", *inside, "link", "set", "lo", "up")
            run("ip", *inside, "address", "add", f"{site.address}/{_PREFIX}", "dev", _DEVICE)
            run("ip", *inside, "link", "set", _DEVICE, "up")
            shape = ("tbf", "rate", f"{mbit_s}mbit", "burst", _BURST, "latency", _QUEUE)
            run("tc", *inside, "qdisc", "add", "dev", _DEVICE, "root", *shape)
        yield sites
    finally:
        sites.close()
        for site in made:
            run("ip", "netns", "delete", site.network)


def _set_network(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "can't change the network")
