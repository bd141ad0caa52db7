"""Where everything of a deployed proxy lies on its machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from scheduler.deployment.server import ProxyServer

ACCOUNT: Final = "proxyfleet"
"""The unprivileged user that proxies run as."""


@dataclass(frozen=True)
class Layout:
    """Folders, the unit, and who owns what."""

    software: str
    """`releases/`, the link `current`, and `supervisor/`."""
    config: str
    """`proxy.toml` and `secrets/`."""
    state: str
    """What the proxy keeps: its instance id, its index caches."""
    account: str
    privileged: bool
    """Whether the login is root, or becomes it."""
    unit: str

    @classmethod
    def of(cls, name: str, server: ProxyServer, *, privileged: bool) -> Self:
        """The layout of a proxy."""
        account = ACCOUNT if privileged else server.user
        unit = f"proxyfleet-proxy-{name}.service"
        if server.install_dir is not None:
            base = server.install_dir
            return cls(base, f"{base}/etc", f"{base}/state", account, privileged, unit)
        return cls(
            "/opt/proxyfleet-proxy", "/etc/proxyfleet-proxy", "/var/lib/proxyfleet-proxy", account, privileged, unit
        )

    @property
    def secrets(self) -> str:
        """One file per secret, for the account alone."""
        return f"{self.config}/secrets"

    @property
    def supervisor(self) -> str:
        """What keeps the proxy running where there is no systemd."""
        return f"{self.software}/supervisor"

    @property
    def unit_file(self) -> str:
        """For systemd."""
        return f"/etc/systemd/system/{self.unit}"

    @property
    def owner(self) -> str:
        """Of what the proxy may write."""
        return f"{self.account}:{self.account}"

    @property
    def readable(self) -> str:
        """Of what the proxy may read, and only root write."""
        return f"root:{self.account}"

    @property
    def everything(self) -> tuple[str, ...]:
        """What is gone once the proxy is removed."""
        software = [f"{self.software}/{one}" for one in ("current", "releases", "supervisor", "name", "running")]
        return (*software, f"{self.software}/.wheels", f"{self.config}/proxy.toml", self.secrets, self.state)

    @property
    def emptied(self) -> tuple[str, ...]:
        """Folders that are gone too, unless somebody else has something in them."""
        return (self.config, self.software)
