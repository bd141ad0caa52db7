"""scheduler.toml: where the scheduler keeps its state, and how it reaches Redis.

Every key can be overridden by an environment variable `SCHEDULER_<KEY>`, tables by `__`:
`SCHEDULER_REDIS__URL`. Relative paths are relative to the folder of the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.names import Name, TransportMode

SEARCHED: Final = (Path("scheduler.toml"), Path("/etc/proxyfleet/scheduler.toml"))
PATH_VARIABLE: Final = "SCHEDULER_CONFIG"
_PREFIX: Final = "SCHEDULER_"


class SchedulerConfigurationError(ConfigurationError):
    """scheduler.toml is missing, is no TOML, or holds something unexpected."""


class SecretError(CredentialError):
    """A secret that the configuration names can't be read."""


class Settings(BaseModel):
    """Immutable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(Settings):
    """The server that the ledger and Celery's queues live on."""

    url: str = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://` (TLS) or `unix://`, without a password."""
    credential: Name | None = None
    """Names the file in `secrets_dir` that holds the password; none: no password."""


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
    datastores: dict[Name, LocalDatastore] = {}


class SchedulerConfiguration(Settings):
    """All of scheduler.toml, with every path absolute."""

    state_dir: Path = Path("/var/lib/proxyfleet/scheduler")
    """The database, the signing key, the lock, and the local proxy's own folder."""
    database_url: str | None = None
    """An SQLAlchemy URL; none: `scheduler.db` in `state_dir`."""
    secrets_dir: Path = Path("/etc/proxyfleet/secrets")
    """One file per secret, readable by the scheduler's user alone."""
    redis: RedisSettings = RedisSettings()
    local_proxy: LocalProxySettings = LocalProxySettings()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL that is used."""
        return self.database_url or f"sqlite:///{self.state_dir / 'scheduler.db'}"

    @property
    def signing_key_path(self) -> Path:
        """The private key that signs task specifications."""
        return self.state_dir / "signing.key"

    @property
    def public_key_path(self) -> Path:
        """Its public half, as `proxy.toml` carries it."""
        return self.state_dir / "signing.pub"

    def redis_password(self) -> str | None:
        """The password of Redis, read anew each time; raises `SecretError` when its file can't be read."""
        if self.redis.credential is None:
            return None
        path = self.secrets_dir / self.redis.credential
        try:
            return path.read_text().strip()
        except OSError as error:
            raise SecretError(
                f"password of Redis in {path}",
                why=error.strerror or str(error),
                remedy="Put the password into that file, or set `secrets_dir`.",
            ) from error


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

    Raises `SchedulerConfigurationError` with file, key, and what is expected there.
    """
    environment = os.environ if environment is None else environment
    path = find_configuration(given, environment)
    document = _read(path) if path is not None else {}
    source = str(path) if path is not None else "scheduler configuration"
    _override(document, environment)
    try:
        configuration = SchedulerConfiguration.model_validate(document)
    except ValidationError as error:
        raise SchedulerConfigurationError(
            source,
            why="; ".join(_explain(one) for one in error.errors()),
            remedy="See the configuration reference.",
        ) from error
    return _absolute(configuration, (path.parent if path is not None else Path()).resolve())


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SchedulerConfigurationError(
            str(path),
            why=error.strerror or str(error),
            remedy=f"Name the file with --config or {PATH_VARIABLE}.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchedulerConfigurationError(str(path), why=f"it is no TOML: {error}") from error


def _override(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Put values of `SCHEDULER_…` variables into `document`; a value is TOML where it parses as such, else text."""
    for variable, text in sorted(environment.items()):
        if not variable.startswith(_PREFIX) or variable == PATH_VARIABLE:
            continue
        *tables, key = variable.removeprefix(_PREFIX).lower().split("__")
        place = document
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key `{key}`"
    return f"`{key}`: {error['msg'][0].lower()}{error['msg'][1:]}, found {error['input']!r}"


def _absolute(configuration: SchedulerConfiguration, folder: Path) -> SchedulerConfiguration:
    local = configuration.local_proxy
    datastores = {
        name: store.model_copy(update={"path": folder / store.path}) if store.path is not None else store
        for name, store in local.datastores.items()
    }
    return configuration.model_copy(
        update={
            "state_dir": folder / configuration.state_dir,
            "secrets_dir": folder / configuration.secrets_dir,
            "local_proxy": local.model_copy(update={"datastores": datastores}),
        }
    )
