"""What lies where in the demo's state folder, and the files that configure a fleet with a vCenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ops.demo.layout import Layout

HERE = Path(__file__).parent
VCENTER = "vc1"
USER = "backup@vsphere.local"


@dataclass(frozen=True)
class VsphereProxy:
    """A proxy of the demo, and what its proxy.toml says about datastores."""

    name: str
    reaches: str
    """In a few words."""
    datastores: str = ""
    """In the words of proxy.toml."""


PROXIES = (
    VsphereProxy(
        "proxy-1",
        "nfs-01 mounted, the rest by VDDK",
        '[datastores.nfs-01]\npath = "${state}/vcenter/mounted/nfs-01"',
    ),
    VsphereProxy("proxy-2", "everything by VDDK"),
    VsphereProxy("proxy-3", "everything by VDDK"),
)


@dataclass(frozen=True)
class VsphereLayout(Layout):
    """The state folder and the ports of one demo with a vCenter."""

    @property
    def vcenter(self) -> Path:
        """The simulated vCenter's datastores and frozen disks."""
        return self.state / "vcenter"

    @property
    def place_file(self) -> Path:
        """The part of the fleet that is there before its vCenter."""
        return self.state / "place.toml"

    @property
    def vcenter_told(self) -> Path:
        """What the simulated vCenter says about itself when it is ready, as JSON."""
        return self.state / "vcenter.json"

    @property
    def vcenter_password(self) -> Path:
        """The server's copy of the account's password; proxies have their own."""
        return self.secrets("server") / f"{VCENTER}.password"

    def write_secrets(self) -> None:
        """Make up the passwords and the passphrase, readable by this user only."""
        super().write_secrets()
        password = self.write_secret(self.vcenter_password)
        self.write_secret(self.secrets("proxies") / f"{VCENTER}.password", password)

    def write_fleet_files(self, **values: str) -> None:
        """Write the fleet's description, once the vCenter's port and certificate are known."""
        self.render(HERE / "place.toml", self.place_file)
        self.render(HERE / "fleet.toml", self.fleet_file, **values)
        self.fleet_file.write_text(self.place_file.read_text() + self.fleet_file.read_text())

    def write_proxy(self, proxy: VsphereProxy) -> Path:
        """Write a proxy's configuration, once the scheduler's public key exists; returns its path."""
        path = self.proxy_config(proxy.name)
        path.parent.mkdir(exist_ok=True)
        self.render(
            HERE / "templates/proxy.toml",
            path,
            name=proxy.name,
            datastores=proxy.datastores.replace("${state}", str(self.state)),
            public_key=self.public_key.read_text().strip(),
        )
        return path
