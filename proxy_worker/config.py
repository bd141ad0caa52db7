"""proxy.toml: who a proxy is, what it reaches, where its secrets are.

Every key can be overridden by an environment variable `PROXY_WORKER_<KEY>`, tables by `__`:
`PROXY_WORKER_REDIS__URL`. A value that is TOML is read as such (`4`, `["network"]`), anything else is text.
Relative paths are relative to the folder of the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, ValidationError

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.names import Name, TransportMode
from proxy_worker.contract.signing import decode_public_key
from proxy_worker.contract.specification import Frozen
from proxy_worker.transport.connections import OFFERED_MODES, Connections, DatastoreConnection

ENVIRONMENT_PREFIX: Final = "PROXY_WORKER_"


class ProxyConfigurationError(ConfigurationError):
    """proxy.toml is missing, is no TOML, or holds something unexpected."""


class SecretError(CredentialError):
    """A secret that the configuration names can't be read."""


class RedisSettings(Frozen):
    """The server that the ledger and the lanes live on."""

    url: str = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://` (TLS) or `unix://`, without a password."""
    credential: Name | None = None
    """Names the file in `secrets_dir` that holds the password; none: no password."""


class ProxyConfiguration(Frozen):
    """All of proxy.toml, with every path absolute."""

    name: Name
    """Unique in the fleet."""
    site: Name = "primary"
    """The site it stands at."""
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=256)] = 2
    """Slots: how many disks it moves at once. The scheduler may order fewer, never more."""
    state_dir: Path
    """Its instance id, its lock, and its index caches. Never shared, never copied to another proxy."""
    secrets_dir: Path = Path("/etc/proxyfleet/secrets")
    """One file per secret: `<credential>.key`, `<credential>.passphrase`, and the password of Redis."""
    transport_modes: tuple[TransportMode, ...] = OFFERED_MODES
    """The modes it may use; by default all it can."""
    scheduler_public_keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """Whose task specifications it obeys: what `scheduler proxy key` prints."""
    redis: RedisSettings = RedisSettings()
    datastores: Mapping[Name, DatastoreConnection] = {}
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0
    """How long disks may go on after SIGTERM before they are handed back with their checkpoints."""

    @property
    def connections(self) -> Connections:
        """What it can reach, as the transports want to know it."""
        return Connections(datastores=self.datastores, modes=self.transport_modes)

    def public_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The keys that a specification may be signed with; raises `SpecificationError`."""
        return tuple(map(decode_public_key, self.scheduler_public_keys))

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


def load_configuration(path: Path, environment: Mapping[str, str]) -> ProxyConfiguration:
    """Read the file and what overrides it; raises `ProxyConfigurationError` with file, key and expectation."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ProxyConfigurationError(
            str(path), why=error.strerror or str(error), remedy="Give the path of a proxy.toml with --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProxyConfigurationError(str(path), why=f"not TOML: {error}") from error
    _override(document, environment)
    try:
        configuration = ProxyConfiguration.model_validate(document)
    except ValidationError as error:
        raise ProxyConfigurationError(
            str(path),
            why="; ".join(f"{'.'.join(map(str, one['loc']))}: {_expectation(one)}" for one in error.errors()),
            remedy="See the configuration reference.",
        ) from error
    configuration.public_keys()
    return _absolute(configuration, path.parent.resolve())


def _override(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        *tables, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = document
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ProxyConfigurationError(variable, why=f"`{table}` is a value, not a table")
        place[key] = _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _expectation(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "missing"
    return f"{error['msg']}, not {error['input']!r}"


def _absolute(configuration: ProxyConfiguration, folder: Path) -> ProxyConfiguration:
    datastores = {
        name: connection.model_copy(update={"path": folder / connection.path})
        if connection.path is not None
        else connection
        for name, connection in configuration.datastores.items()
    }
    return configuration.model_copy(
        update={
            "state_dir": folder / configuration.state_dir,
            "secrets_dir": folder / configuration.secrets_dir,
            "datastores": datastores,
        }
    )
