"""A fleet whose repository is behind a gateway: jobs, a cut link, a restore, and upkeep where it is allowed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, flat_path, make_machines
from proxy_worker.link.identity import CERTIFICATE_VARIABLE
from tests.surviving.relay import Relay, Wire
from tests.system.live_fleet import BIN, LiveFleet, explained, wait_until

MACHINE = Machine("web01", "ds", (Disk("scsi0:0", 32, 24, filesystem=False),))
FAR = """
[[repository]]
name = "far"
location = "{url}"
site = "primary"
credential = "far"
proxies = ["proxy-1", "vault"]
[[job]]
name = "nightly"
vms = ["web01"]
repository = "far"
"""
GATEWAY = """
host = "127.0.0.1"
port = 0
certificate = "vault.pem"
key = "vault-key.pem"
ca_file = "ca.pem"
[repositories.far]
path = "../far"
proxies = ["proxy-*"]
"""


class FarFleet(LiveFleet):
    """`proxy-1` may add to what is behind the gateway; `vault`, which shows the gateway's certificate, tends it."""

    gateway: subprocess.Popen[str]
    relay: Relay

    def _write_files(self) -> None:
        self._fleet_toml = self._fleet_toml.replace("{url}", "")
        super()._write_files()
        self.command("scheduler", "pki", "init")
        for name, role in (("vault", "gateway"), ("proxy-1", "proxy")):
            words = ("--role", role, "--address", "127.0.0.1", "--out", str(self.certificate(name).parent))
            self.command("scheduler", "pki", "issue", name, *words)
        settings = self.certificate("vault").with_name("gateway.toml")
        settings.write_text(GATEWAY)
        self.gateway = subprocess.Popen(
            [BIN / "proxy-worker", "serve", "--config", settings, "--json"], stdout=subprocess.PIPE, text=True
        )
        assert self.gateway.stdout is not None
        self.relay = Relay(json.loads(self.gateway.stdout.readline())["port"])
        self.url = f"proxyfleet://127.0.0.1:{self.relay.port}/far"
        text = self.layout.fleet_file.read_text()
        self.layout.fleet_file.write_text(text.replace('location = ""', f'location = "{self.url}"'))
        passphrase = self.layout.state / "far.passphrase"
        self.layout.write_secret(passphrase)
        self.opening = ("--passphrase-file", str(passphrase))
        self.by_hand("vault", "repository", "init", self.url, *self.opening)
        key = self.layout.secrets("proxies") / "far.key"
        self.by_hand("vault", "repository", "keys", "export-write", self.url, *self.opening, "--out", str(key))

    def _configure(self, proxy: ProxyPlace) -> None:
        config = self.layout.write_proxy_file(proxy)
        certificate = self.certificate(proxy.name)
        lines = {"certificate": certificate, "key": certificate.with_name(f"{proxy.name}-key.pem")}
        lines["ca_file"] = certificate.with_name("ca.pem")
        table = "\n".join(f'{key} = "{path}"' for key, path in lines.items())
        config.write_text(f"{config.read_text()}\n[link]\n{table}\n")

    def _end(self) -> None:
        super()._end()
        if hasattr(self, "gateway"):
            self.gateway.terminate()
            self.gateway.communicate(timeout=60)
            self.relay.close()

    def certificate(self, name: str) -> Path:
        return self.layout.state / f"pki-{name}" / f"{name}.pem"

    def by_hand(self, name: str, *words: str) -> str:
        """A command with somebody's certificate."""
        environment = os.environ | {CERTIFICATE_VARIABLE: str(self.certificate(name))}
        return subprocess.run(
            [BIN / "proxy-worker", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


@contextmanager
def far_fleet(state: Path) -> Iterator[FarFleet]:
    places = [ProxyPlace("proxy-1", "primary", "ds"), ProxyPlace("vault", "primary", "none")]
    with FarFleet(state, places, FAR) as fleet, explained(fleet):
        yield fleet


def test_a_job_backs_up_over_a_link_that_is_cut_and_only_the_gateways_own_proxy_removes(tmp_path: Path) -> None:
    make_machines([MACHINE], tmp_path / "datastores", tmp_path / "scratch")
    with far_fleet(tmp_path) as fleet:
        disk = flat_path(fleet.layout.datastores / "ds" / "web01", MACHINE.disks[0])
        fleet.command("scheduler", "job", "start", "nightly")
        wait_until(
            lambda: any((tmp_path / "far" / "writers").glob("*/*/*")), "the backup to have begun", timeout_s=90
        )
        fleet.relay.wire = Wire.CUT
        fleet.relay.wire = Wire.WHOLE
        wait_until(lambda: _ended(fleet), "the run to end", timeout_s=120)

        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        again = fleet.newest_run()
        assert again["disks"][0]["parent"] is not None
        target = tmp_path / "restored.img"
        fleet.by_hand(
            *("proxy-1", "restore", "--repository", fleet.url, *fleet.opening, "--vm", "web01"),
            *("--disk", "scsi0:0", "--to", str(target)),
        )
        assert target.read_bytes() == disk.read_bytes()

        fleet.command("scheduler", "point", "delete", "web01", again["vms"][0]["point"])
        wait_until(lambda: len(_points(fleet)) == 1, "the point to be removed", timeout_s=90)
        assert len(list((tmp_path / "far" / "ended").glob("*/*"))) == 1


def _ended(fleet: FarFleet) -> bool:
    return bool(fleet.newest_run()["state"] == "succeeded")


def _points(fleet: FarFleet) -> list[object]:
    points: list[object] = fleet.read_json("scheduler", "point", "list", "--vm", "web01", "--json")
    return points
