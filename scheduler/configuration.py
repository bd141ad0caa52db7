"""scheduler.toml: where the scheduler keeps its state, and how it reaches Redis.

Every key can be overridden by an environment variable: see
`proxy_worker.program.settings`. Relative paths are relative to the folder of the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Name
from proxy_worker.ledger import RedisAccess
from proxy_worker.program.exposition import MetricsSettings
from proxy_worker.program.instant_restore import InstantRestoreSettings
from proxy_worker.program.logs import LogFormat
from proxy_worker.program.settings import RedisSettings, Settings, read_secret, read_settings
from scheduler.server_backup.settings import ServerBackupSettings
from scheduler.state.access import DatabaseAccess

SEARCHED: Final = (Path("scheduler.toml"), Path("/etc/proxyfleet/scheduler.toml"))
PATH_VARIABLE: Final = "SCHEDULER_CONFIG"
_PREFIX: Final = "SCHEDULER_"


class DatabasePasswordError(ConfigurationError):
    """The URL of a database holds a password."""


def refuse_password(url: str, what: str, instead: str) -> None:
    """Raise `DatabasePasswordError`, which says what to do `instead`, if a database's URL has a password."""
    if ":" in urlsplit(url).netloc.rpartition("@")[0]:
        raise DatabasePasswordError(
            what,
            why="it holds a password, which logs and process lists would show",
            remedy=f"Leave it out, and {instead}.",
        )


class LocalDatastore(Settings):
    """A datastore as the server's own proxy reaches it."""

    path: Path | None = None
    """A folder on this machine: direct_storage."""
    network_uri: str | None = None
    """An NBD URI with `{path}`: network."""
    network_command: tuple[str, ...] | None = None
    """A command that serves a disk as NBD, with `{socket}` and `{path}`: network."""


class LocalProxySettings(Settings):
    """The proxy that `scheduler serve` runs on its own machine."""

    enabled: bool = True
    """Whether there is one."""
    name: Name = "server"
    """Its name; restores are written by it unless another proxy is named."""
    site: Name = "primary"
    """The site it stands at."""
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=256)] = 2
    """Its slots: how many disks it moves at once."""
    transport_modes: tuple[TransportMode, ...] | None = None
    """The modes it may use; none given: all it can."""
    datastores: Mapping[Name, LocalDatastore] = {}
    instant_restore: InstantRestoreSettings | None = None
    """How VMs run from repositories by it; None: they don't."""


class DeploymentSettings(Settings):
    """What proxies are given that the scheduler puts on machines."""

    secrets_dir: Path | None = None
    """Where the secrets for proxies lie, e.g. write keys; none: the scheduler's own `secrets_dir`."""
    redis_kits_dir: Path | None = None
    """The `kits` folder that `scheduler redis configure` wrote: each proxy gets its site's user of Redis. None:
    they connect as the scheduler does, which is for a Redis without users only."""


class SchedulerConfiguration(Settings):
    """All of scheduler.toml, with every path absolute."""

    state_dir: Path = Path("/var/lib/proxyfleet/scheduler")
    """The database, the signing key, the lock, and the local proxy's own folder."""
    database_url: str | None = None
    """An SQLAlchemy URL without a password: `postgresql+pg8000://user@host/name`; none: `scheduler.db` in
    `state_dir`."""
    database_credential: Name | None = None
    """Names the file in `secrets_dir` that holds the database user's password; none: no password."""
    database_ca_file: Path | None = None
    """The authority that must have certified the database server; none: TLS if the server offers it, unchecked."""
    secrets_dir: Path = Path("/etc/proxyfleet/secrets")
    """One file per secret, readable by the scheduler's user alone."""
    history_days: Annotated[int, Field(ge=0)] = 400
    """How long runs, restores and requests are remembered after their end; 0: for ever. Runs whose restore points
    exist, and the newest of each job, stay."""
    server_backup: ServerBackupSettings = ServerBackupSettings()
    redis: RedisSettings = RedisSettings()
    metrics: MetricsSettings = MetricsSettings()
    log_format: LogFormat = LogFormat.TEXT
    """`text`, or `json`: one object a line; of `scheduler serve` and of the local proxy."""
    local_proxy: LocalProxySettings = LocalProxySettings()
    deployment: DeploymentSettings = DeploymentSettings()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL that is used."""
        return self.database_url or f"sqlite:///{self.state_dir / 'scheduler.db'}"

    @property
    def history_s(self) -> float:
        """The same in seconds."""
        return self.history_days * 86_400.0 or float("inf")

    def database_access(self) -> DatabaseAccess:
        """How the database is reached, its password read anew each time.

        Raises `SecretError` when that can't be read, `DatabasePasswordError` when it stands in the URL.
        """
        refuse_password(self.database, "database_url", "name a file in `secrets_dir` by `database_credential`")
        password = None
        if self.database_credential is not None:
            password = read_secret(self.secrets_dir / self.database_credential, "password of the database")
        return DatabaseAccess(self.database, password, self.database_ca_file)

    @property
    def signing_key_path(self) -> Path:
        """The private key that signs task specifications."""
        return self.state_dir / "signing.key"

    @property
    def public_key_path(self) -> Path:
        """Its public half, as `proxy.toml` carries it."""
        return self.state_dir / "signing.pub"

    @property
    def pki_dir(self) -> Path:
        """The fleet's authority, if it has one."""
        return self.state_dir / "pki"

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


def find_configuration(given: Path | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """The file that applies: `given`, else `$SCHEDULER_CONFIG`, else the first of `SEARCHED` that exists."""
    environment = os.environ if environment is None else environment
    if given is not None:
        return given
    if named := environment.get(PATH_VARIABLE):
        return Path(named)
    return next((path for path in SEARCHED if path.exists()), None)


def load_configuration(
    given: Path | None = None, environment: Mapping[str, str] | None = None
) -> SchedulerConfiguration:
    """Read the configuration; without any file it is made of defaults and the environment.

    Raises `SettingsError` with file, key, and what is expected there.
    """
    environment = os.environ if environment is None else environment
    path = find_configuration(given, environment)
    configuration = read_settings(
        SchedulerConfiguration, path, environment, prefix=_PREFIX, not_settings=frozenset({PATH_VARIABLE})
    )
    return _absolute(configuration, (path.parent if path is not None else Path()).resolve())


def _absolute(configuration: SchedulerConfiguration, folder: Path) -> SchedulerConfiguration:
    local = configuration.local_proxy
    datastores = {
        name: store.model_copy(update={"path": folder / store.path}) if store.path is not None else store
        for name, store in local.datastores.items()
    }
    deployment = configuration.deployment
    given = {key: folder / path for key, path in deployment if path is not None}
    return configuration.model_copy(
        update={
            "deployment": deployment.model_copy(update=given),
            "state_dir": folder / configuration.state_dir,
            "secrets_dir": folder / configuration.secrets_dir,
            "database_ca_file": configuration.database_ca_file and folder / configuration.database_ca_file,
            "redis": configuration.redis.below(folder),
            "metrics": configuration.metrics.below(folder),
            "local_proxy": local.model_copy(update={"datastores": datastores}),
        }
    )
