"""A fleet at two sites: scheduler, Redis and `proxy-1` at the primary, a gateway and `remote-1` at the remote.

Each proxy takes replicas from the other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.demo.layout import ProxyPlace
from tests.surviving.relay import Relay
from tests.system.far_fleet import FarFleet
from tests.system.live_fleet import explained
from tests.two_sites import Sites, two_sites

REMOTE: Final = """
[[site]]
name = "remote"
[[datastore]]
name = "remote-ds"
site = "remote"
[[repository]]
name = "far"
location = "{url}"
site = "remote"
credential = "far"
proxies = ["proxy-1"]
"""
REPLICA_PORT: Final = 7070
"""Where each proxy takes replicas: its site's network is its own, and ports that the kernel chooses are higher."""
PLACES: Final = (ProxyPlace("proxy-1", "primary", "ds"), ProxyPlace("remote-1", "remote", "remote-ds"))


class TwoSiteFleet(FarFleet):
    """What is at the remote site reaches Redis, and what is at the primary the gateway, over the link alone."""

    forks_commands = False

    def __init__(
        self,
        state: Path,
        sites: Sites,
        jobs: str,
        *,
        proxies: Sequence[ProxyPlace] = PLACES,
        nbd_mib_s: int | None = None,
    ) -> None:
        """Make and use it inside of the primary site."""
        super().__init__(state, proxies, REMOTE + jobs, nbd_mib_s=nbd_mib_s)
        self.sites = sites
        self.gateway_host = sites.remote.address
        self.redis: Relay
        self.replicas = {
            site.name: sites.reach(site, REPLICA_PORT, own_port=REPLICA_PORT)
            for site in (sites.primary, sites.remote)
        }
        """The ways to where the proxies of a site take replicas, by the site."""

    def _write_files(self) -> None:
        super()._write_files()
        away = [proxy.name for proxy in self.proxies if proxy.site == self.sites.remote.name]
        for name in away:
            words = ("--role", "proxy", "--address", self.gateway_host, "--out", str(self.certificate(name).parent))
            self.command("scheduler", "pki", "issue", name, *words)

    def _serve(self, command: list[str]) -> subprocess.Popen[str]:
        with self.sites.remote.entered():
            return super()._serve(command)

    def _reach(self, port: int) -> Relay:
        return self.sites.reach(self.sites.remote, port)

    def _start_redis(self) -> None:
        super()._start_redis()
        self.redis = self.sites.reach(self.sites.primary, self.layout.redis_port)

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        config = self.layout.proxy_config(proxy.name)
        host = self.replicas[proxy.site].host
        config.write_text(
            f'{config.read_text()}\n[replication]\nhost = "{host}"\nlisten = "127.0.0.1"\n'
            f"ports = [{REPLICA_PORT}, {REPLICA_PORT}]\n"
        )
        if proxy.site == self.sites.remote.name:
            here = f"127.0.0.1:{self.layout.redis_port}"
            config.write_text(config.read_text().replace(here, f"{self.redis.host}:{self.redis.port}"))

    def start(self, name: str) -> None:
        """See `LiveFleet`: at the site where it belongs."""
        places = {proxy.name: proxy.site for proxy in self.proxies}
        if places.get(name) != self.sites.remote.name:
            super().start(name)
            return
        with self.sites.remote.entered():
            super().start(name)

    def log(self, name: str) -> str:
        """All that a process has written."""
        return (self.layout.state / "logs" / f"{name}.log").read_text(errors="replace")


@contextmanager
def two_site_fleet(
    state: Path, jobs: str, *, mbit_s: int, delay_s: float, nbd_mib_s: int | None = None
) -> Iterator[TwoSiteFleet]:
    """Such a fleet; for the length of the block, this thread is at the primary site."""
    with (
        two_sites(mbit_s=mbit_s, delay_s=delay_s) as sites,
        sites.primary.entered(),
        TwoSiteFleet(state, sites, jobs, nbd_mib_s=nbd_mib_s) as fleet,
        explained(fleet),
    ):
        yield fleet
