"""proxy.toml: who a proxy is, what it reaches, where its secrets are.

Every key can be overridden by an environment variable: see `proxy_worker.program.settings`.
Relative paths are relative to the folder of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, IPvAnyAddress, model_validator

from proxy_worker.contract.names import MODE_PREFERENCE, TransportMode
from proxy_worker.contract.signing import decode_public_key
from proxy_worker.contract.subjects import Name
from proxy_worker.ledger.access import RedisAccess
from proxy_worker.link.identity import Identity
from proxy_worker.program.exposition import MetricsSettings
from proxy_worker.program.instant_restore import InstantRestoreSettings
from proxy_worker.program.logs import LogFormat
from proxy_worker.program.settings import RedisSettings, Settings, read_settings
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.guest_disks import BY_ID

ENVIRONMENT_PREFIX: Final = "PROXY_WORKER_"
Port = Annotated[int, Field(ge=1, le=65_535)]


class LinkSettings(Settings):
    """What is shown to the gateways of repositories elsewhere, and what theirs are verified with."""

    certificate: Path | None = None
    """This machine's certificate, of role proxy, or gateway on the machine that tends a gateway's repositories;
    without this key, the one that is shown to Redis."""
    key: Path | None = None
    """The key of `certificate`; without this key, the one for Redis."""
    ca_file: Path | None = None
    """The fleet's authority, and what it has revoked; without this key, the one for Redis."""

    def below(self, folder: Path) -> Self:
        """The same with every path absolute, relative ones being relative to `folder`."""
        paths = {"ca_file": self.ca_file, "certificate": self.certificate, "key": self.key}
        return self.model_copy(update={name: folder / path for name, path in paths.items() if path is not None})


class ReplicationSettings(Settings):
    """How it receives disks of replicas from other proxies, and sends them."""

    host: str | None = None
    """The name or IP address that other proxies reach it by; without this key, its `address`."""
    listen: str = "0.0.0.0"  # noqa: S104 - it is there to be reached
    """The IP address that it listens on while it receives a disk."""
    ports: tuple[Port, Port] = (7450, 7549)
    """The first and the last of the ports that it listens on, one for each disk."""
    retry_pause_s: Annotated[float, Field(gt=0)] = 15.0
    """After a cut, it tries to go on at least this often."""
    give_up_after_s: Annotated[float, Field(gt=0)] = 1800.0
    """How long a cut may last."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.ports[0] > self.ports[1]:
            raise ValueError("give the first port, then the last")
        return self


class ProxyConfiguration(Settings):
    """All of proxy.toml, with every path absolute."""

    name: Name
    """Unique in the fleet."""
    site: Name = "primary"
    """The site it stands at."""
    address: IPvAnyAddress | None = None
    """The IP address that traffic rules know it by; without this key, the one that it reaches Redis from."""
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=256)] = 2
    """Slots: how many disks it moves at once. The scheduler may order fewer, never more."""
    state_dir: Path
    """Its instance id, its lock, and its index caches. Never shared, never copied to another proxy."""
    secrets_dir: Path = Path("/etc/proxyfleet/secrets")
    """One file per secret: `<credential>.key`, `<credential>.passphrase`, of vCenters `<credential>.password`, and
    the password of Redis."""
    transport_modes: tuple[TransportMode, ...] = MODE_PREFERENCE
    """The modes it may use; by default all it can."""
    failover_to_network: bool = True
    """Whether disks that another mode can't read are read over the network here; a job can forbid it too."""
    encryption_to_host: bool = False
    """Whether network mode by VDDK must be encrypted up to the host; otherwise it is where the host allows it."""
    vddk_libdir: Path | None = None
    """Where VMware's VDDK was unpacked; None: where nbdkit's plug-in looks by itself."""
    vcenter_ca_file: Path | None = None
    """Authorities that vCenters' certificates are verified with, where none is pinned; None: the system's."""
    product_uuid: str | None = None
    """The BIOS uuid of the VM that it runs in; None: as `/sys/class/dmi/id/product_uuid` says. Empty: in no VM."""
    guest_disks_dir: Path = BY_ID
    """Links to this machine's block devices, whose names end with a disk's uuid or WWN, as udev makes them."""
    scheduler_public_keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """Whose task specifications it obeys: what `scheduler proxy key` prints."""
    redis: RedisSettings = RedisSettings()
    link: LinkSettings = LinkSettings()
    replication: ReplicationSettings = ReplicationSettings()
    instant_restore: InstantRestoreSettings | None = None
    datastores: Mapping[Name, DatastoreConnection] = {}
    metrics: MetricsSettings = MetricsSettings()
    log_format: LogFormat = LogFormat.TEXT
    """`text`, or `json`: one object a line."""
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0
    """How long disks may go on after SIGTERM before they are handed back with their checkpoints."""

    @property
    def connections(self) -> Connections:
        """What it can reach, as the transports want to know it."""
        return Connections(
            datastores=self.datastores,
            modes=self.transport_modes,
            failover_to_network=self.failover_to_network,
        )

    def public_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The keys that a specification may be signed with; raises `SpecificationError`."""
        return tuple(map(decode_public_key, self.scheduler_public_keys))

    def link_identity(self) -> Identity | None:
        """What it shows gateways, if it has a certificate, a key and an authority."""
        files = {key: getattr(self.link, key) or getattr(self.redis, key) for key in LinkSettings.model_fields}
        return None if None in files.values() else Identity(**files)

    def redis_access(self) -> RedisAccess:
        """How Redis is reached, its files read anew each time; raises `SecretError` when one can't be read."""
        redis = self.redis
        redis.check_files()
        return RedisAccess(
            redis.url,
            redis.username,
            redis.password(self.secrets_dir),
            redis.ca_file,
            redis.certificate,
            redis.key,
        )


def load_configuration(path: Path, environment: Mapping[str, str]) -> ProxyConfiguration:
    """Read the file and what overrides it; raises `SettingsError` with file, key and expectation."""
    configuration = read_settings(ProxyConfiguration, path, environment, prefix=ENVIRONMENT_PREFIX)
    configuration.public_keys()
    return _absolute(configuration, path.parent.resolve())


def _absolute(configuration: ProxyConfiguration, folder: Path) -> ProxyConfiguration:
    datastores = {name: connection.below(folder) for name, connection in configuration.datastores.items()}
    optional = {key: getattr(configuration, key) for key in ("vddk_libdir", "vcenter_ca_file")}
    instant = configuration.instant_restore
    if instant is not None:
        instant = instant.model_copy(update={"folder": folder / configuration.state_dir / instant.folder})
    return configuration.model_copy(
        update={
            "state_dir": folder / configuration.state_dir,
            "secrets_dir": folder / configuration.secrets_dir,
            "guest_disks_dir": folder / configuration.guest_disks_dir,
            "redis": configuration.redis.below(folder),
            "link": configuration.link.below(folder),
            "metrics": configuration.metrics.below(folder),
            "instant_restore": instant,
            "datastores": datastores,
            **{key: folder / path for key, path in optional.items() if path is not None},
        }
    )
