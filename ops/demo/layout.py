"""What lies where in the demo's state folder, and the files that configure the fleet."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ProxyPlace:
    """A proxy of the demo: its name, where it stands, and the datastore it reaches."""

    name: str
    site: str
    datastore: str
    address: str | None = None
    """What traffic rules go by. All of them are this machine: it stands for one of the site's network."""


PROXIES = (
    ProxyPlace("primary-1", "primary", "primary-ds", "10.1.0.1"),
    ProxyPlace("primary-2", "primary", "primary-ds", "10.1.0.2"),
    ProxyPlace("remote-1", "remote", "remote-ds", "10.2.0.1"),
)


@dataclass(frozen=True)
class Layout:
    """The state folder and the ports of one demo."""

    state: Path
    redis_port: int
    flower_port: int

    @property
    def datastores(self) -> Path:
        """A folder for each datastore, with a folder for each VM."""
        return self.state / "datastores"

    @property
    def repository(self) -> Path:
        """The backup repository."""
        return self.state / "repository"

    @property
    def restored(self) -> Path:
        """Where disks are restored to."""
        return self.state / "restored"

    @property
    def scratch(self) -> Path:
        """For files that are needed for a moment."""
        return self.state / "scratch"

    @property
    def scheduler_config(self) -> Path:
        """The backup server's configuration."""
        return self.state / "scheduler.toml"

    @property
    def fleet_file(self) -> Path:
        """What `scheduler apply` reads."""
        return self.state / "fleet.toml"

    @property
    def public_key(self) -> Path:
        """The public half of the key that the scheduler signs specifications with; `serve` makes it."""
        return self.state / "scheduler/signing.pub"

    @property
    def passphrase(self) -> Path:
        """Opens the repository; only the server has it."""
        return self.secrets("server") / "main.passphrase"

    @property
    def write_key(self) -> Path:
        """Adds to the repository and can't read a block of it; what proxies get."""
        return self.secrets("proxies") / "main.key"

    @property
    def redis_password(self) -> Path:
        """The server's copy of the password."""
        return self.secrets("server") / "redis"

    @property
    def flower_user(self) -> Path:
        """`user:password` for Flower."""
        return self.secrets("flower") / "flower"

    def certificates(self, name: str) -> Path:
        """A proxy's certificate and its key."""
        return self.state / "certificates" / name

    def secrets(self, holder: str) -> Path:
        """The secrets of `server`, `proxies` or `flower`: one file each."""
        return self.state / "secrets" / holder

    def proxy_config(self, name: str) -> Path:
        """The `proxy.toml` of one proxy."""
        return self.state / "proxies" / f"{name}.toml"

    def write_secrets(self) -> None:
        """Make up the passwords and the passphrase, readable by this user only."""
        password = secrets.token_urlsafe(24)
        for holder in ("server", "proxies", "flower"):
            self.secrets(holder).mkdir(parents=True, mode=0o700)
            self.write_secret(self.secrets(holder) / "redis", password)
        self.write_secret(self.passphrase)
        self.write_secret(self.flower_user, f"admin:{secrets.token_urlsafe(12)}")

    def write_server_files(self) -> None:
        """Write the server's configuration and the fleet's description."""
        self.render(HERE / "templates/scheduler.toml", self.scheduler_config)
        self.render(HERE / "fleet.toml", self.fleet_file)

    def write_proxy_file(self, proxy: ProxyPlace) -> Path:
        """Write a proxy's configuration, once the scheduler's public key exists; returns its path."""
        path = self.proxy_config(proxy.name)
        path.parent.mkdir(exist_ok=True)
        self.render(
            HERE / "templates/proxy.toml",
            path,
            name=proxy.name,
            site=proxy.site,
            datastore=proxy.datastore,
            address=f'address = "{proxy.address}"' if proxy.address else "",
            public_key=self.public_key.read_text().strip(),
        )
        if self.certificates(proxy.name).exists():
            link = self.scratch / "link.toml"
            self.render(HERE / "templates/link.toml", link, name=proxy.name)
            path.write_text(path.read_text() + link.read_text())
        return path

    def render(self, template: Path, target: Path, **values: str) -> None:
        """Write a file of the fleet from a template."""
        text = string.Template(template.read_text(encoding="utf-8"))
        target.write_text(
            text.substitute(values, state=str(self.state), redis_port=str(self.redis_port)), encoding="utf-8"
        )

    def write_secret(self, path: Path, secret: str | None = None) -> str:
        """Put a secret, or one made up, into a file that only this user can read; returns it."""
        secret = secret or secrets.token_urlsafe(24)
        path.touch(mode=0o600)
        path.write_text(secret + "\n", encoding="utf-8")
        return secret
