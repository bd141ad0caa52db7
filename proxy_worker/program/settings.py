"""Settings: a TOML file, keys that the environment overrides, and secrets that are files of their own.

A variable `<PREFIX><KEY>` overrides a key, tables by `__`: `SCHEDULER_REDIS__URL`. Its value is TOML where it
parses as such (`4`, `["network"]`), text otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.subjects import Name


class SettingsError(ConfigurationError):
    """A program's settings are missing, are no TOML, or hold something unexpected."""


class SecretError(CredentialError):
    """A secret that the settings name can't be read."""


class Settings(BaseModel):
    """Immutable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class RedisSettings(Settings):
    """The server that the ledger and the lanes live on."""

    url: str = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://` (TLS) or `unix://`, without a password."""
    credential: Name | None = None
    """Names the file in `secrets_dir` that holds the password; none: no password."""
    username: Name | None = None
    """The ACL user; none: Redis' default user. `scheduler redis configure` makes one for each site."""
    ca_file: Path | None = None
    """The authority that must have certified the server, and what it revoked; none: those the system trusts."""
    certificate: Path | None = None
    """What is shown to a server that asks for a certificate."""
    key: Path | None = None
    """The key of `certificate`."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together or not at all")
        if self.ca_file is not None and not self.url.startswith("rediss://"):
            raise ValueError("ca_file is for TLS: write the url as rediss://host:6379/0")
        return self

    def below(self, folder: Path) -> Self:
        """The same with every path absolute, relative ones being relative to `folder`."""
        paths = {"ca_file": self.ca_file, "certificate": self.certificate, "key": self.key}
        return self.model_copy(update={name: folder / path for name, path in paths.items() if path is not None})

    def check_files(self) -> None:
        """Raise `SecretError` when a file for TLS can't be read: TLS itself would name no file."""
        for name in ("ca_file", "certificate", "key"):
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            try:
                path.read_bytes()
            except OSError as error:
                raise SecretError(
                    f"{name} of Redis in {path}",
                    why=error.strerror or str(error),
                    remedy=f"Put it there, readable by this user, or set `{name}` below [redis].",
                ) from error

    def password(self, secrets_dir: Path) -> str | None:
        """The password, read anew each time; raises `SecretError` when its file can't be read."""
        if self.credential is None:
            return None
        return read_secret(secrets_dir / self.credential, "password of Redis")


def read_secret(path: Path, what: str) -> str:
    """The one line that a secret's file holds; raises `SecretError`, which says `what` it is."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SecretError(
            f"{what} in {path}",
            why=error.strerror or str(error),
            remedy="Put it into that file, readable by this user, or set `secrets_dir`.",
        ) from error


S = TypeVar("S", bound=Settings)


def read_settings(
    model: type[S],
    path: Path | None,
    environment: Mapping[str, str],
    *,
    prefix: str,
    not_settings: frozenset[str] = frozenset(),
) -> S:
    """Read and validate a file, if there is one, with what overrides it.

    `not_settings` are variables with the prefix that mean something else. Raises `SettingsError`
    with file, key, and what is expected there.
    """
    document = _read(path) if path is not None else {}
    _override(document, environment, prefix, not_settings)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SettingsError(
            str(path) if path is not None else f"settings in {prefix}… variables",
            why="; ".join(_explain(one) for one in error.errors()),
            remedy="See the configuration reference.",
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            str(path), why=error.strerror or str(error), remedy="Give the path of the file with --config."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            str(path), why="it is no TOML, nor any text in UTF-8", remedy="Give the path of the file with --config."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(str(path), why=f"it is no TOML: {error}") from error


def _override(
    document: dict[str, Any], environment: Mapping[str, str], prefix: str, not_settings: frozenset[str]
) -> None:
    for variable, text in sorted(environment.items()):
        if not variable.startswith(prefix) or variable in not_settings:
            continue
        *tables, key = variable.removeprefix(prefix).lower().split("__")
        place = document
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise SettingsError(variable, why=f"`{table}` is a value, not a table")
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
    if error["type"] == "missing":
        return f"`{key}` is missing"
    return f"`{key}`: {error['msg'][0].lower()}{error['msg'][1:]}, found {error['input']!r}"
