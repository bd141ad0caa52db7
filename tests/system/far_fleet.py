"""A fleet whose repository is behind a gateway, which runs beside it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

from ops.demo.layout import ProxyPlace
from proxy_worker.link.identity import CERTIFICATE_VARIABLE
from tests.surviving.relay import Relay
from tests.system.commands import BIN
from tests.system.live_fleet import LiveFleet

GATEWAY: Final = """
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
    """`proxy-*` may add to what is behind the gateway; `vault`, who shows the gateway's certificate, tends it.

    Its fleet.toml has `{url}` where the repository is.
    """

    gateway_host = "127.0.0.1"
    """By which address the gateway is reached."""
    gateway: subprocess.Popen[str]
    relay: Relay

    @property
    def far(self) -> Path:
        """The repository's folder at the gateway."""
        return self.layout.state / "far"

    def _write_files(self) -> None:
        super()._write_files()
        self.command("scheduler", "pki", "init")
        for name, role in (("vault", "gateway"), ("proxy-1", "proxy")):
            words = ("--role", role, "--address", self.gateway_host, "--out", str(self.certificate(name).parent))
            self.command("scheduler", "pki", "issue", name, *words)
        settings = self.certificate("vault").with_name("gateway.toml")
        settings.write_text(GATEWAY)
        self.gateway = self._serve([str(BIN / "proxy-worker"), "serve", "--config", str(settings), "--json"])
        assert self.gateway.stdout is not None
        self.relay = self._reach(json.loads(self.gateway.stdout.readline())["port"])
        self.url = f"proxyfleet://{self.gateway_host}:{self.relay.port}/far"
        text = self.layout.fleet_file.read_text()
        self.layout.fleet_file.write_text(text.replace("{url}", self.url))
        passphrase = self.layout.state / "far.passphrase"
        self.layout.write_secret(passphrase)
        self.opening = ("--passphrase-file", str(passphrase))
        self.by_hand("vault", "repository", "init", self.url, *self.opening)
        key = self.layout.secrets("proxies") / "far.key"
        self.by_hand("vault", "repository", "keys", "export-write", self.url, *self.opening, "--out", str(key))

    def _serve(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def _reach(self, port: int) -> Relay:
        """A way to the gateway that can be cut."""
        return Relay(port)

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        certificate = self.certificate(proxy.name)
        if certificate.exists():
            config = self.layout.proxy_config(proxy.name)
            lines = {"certificate": certificate, "key": certificate.with_name(f"{proxy.name}-key.pem")}
            lines["ca_file"] = certificate.with_name("ca.pem")
            table = "\n".join(f'{key} = "{path}"' for key, path in lines.items())
            config.write_text(f"{config.read_text()}\n[link]\n{table}\n")

    def _end(self) -> None:
        super()._end()
        if hasattr(self, "gateway"):
            self.gateway.terminate()
            self.gateway.communicate(timeout=120)
        if hasattr(self, "relay"):
            self.relay.close()

    def certificate(self, name: str) -> Path:
        """Where somebody's certificate is, if it has one."""
        return self.layout.state / f"pki-{name}" / f"{name}.pem"

    def start_by_hand(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a command with somebody's certificate."""
        environment = os.environ | {CERTIFICATE_VARIABLE: str(self.certificate(name))}
        return subprocess.Popen([BIN / "proxy-worker", *words], env=environment, stdout=subprocess.PIPE, text=True)

    def by_hand(self, name: str, *words: str) -> str:
        """What a command with somebody's certificate prints; fails when it does."""
        started = self.start_by_hand(name, *words)
        printed, _ = started.communicate()
        assert started.returncode == 0, f"{' '.join(words)}: code {started.returncode}\n{printed}"
        return printed
