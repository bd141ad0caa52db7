"""A repository as the place of the server's archives. `proxy-worker`, which knows repositories, does the work."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from proxy_worker.contract.errors import (
    ConfigurationError,
    ConflictError,
    CredentialError,
    DamageError,
    NotFoundError,
    ProxyfleetError,
    SourceError,
    StoreError,
    TargetError,
)
from scheduler.configuration import SchedulerConfiguration
from scheduler.local_proxy import access_key, proxy_worker
from scheduler.server_backup.errors import NoServerBackupError, ShelfError
from scheduler.state.models import Repository

VM: Final = "proxyfleet-server"
"""The name that the server's restore points go by; no VM has it."""
DISK: Final = "archive"
_ENDED_BY: Final[dict[int, type[ProxyfleetError]]] = {
    kind.exit_code: kind
    for kind in (
        ConfigurationError,
        NotFoundError,
        DamageError,
        CredentialError,
        StoreError,
        SourceError,
        ConflictError,
        TargetError,
    )
}


@dataclass(frozen=True)
class StoredArchive:
    """A backup of the server in the repository."""

    point: str
    made_at: float
    """Unix seconds."""
    size_bytes: int


@dataclass(frozen=True)
class Shelf:
    """A repository, and what opens it: a passphrase's or a key's file, or neither when it isn't encrypted."""

    location: str
    passphrase_file: Path | None = None
    key_file: Path | None = None
    access_key_file: Path | None = None
    """With an object store's key, its id and its secret a line each; None: the environment has one, if need be."""

    @classmethod
    def of(cls, repository: Repository, configuration: SchedulerConfiguration) -> Self:
        """A declared repository, opened by what the secrets folder has: a key rather than a passphrase."""
        if repository.credential is None:
            return cls(repository.location)
        secret = configuration.secrets_dir / repository.credential
        key, passphrase, access = (
            secret.with_name(f"{secret.name}.{kind}") for kind in ("key", "passphrase", "s3")
        )
        access_key_file = access if access.exists() else None
        if key.exists() or not passphrase.exists():
            return cls(repository.location, key_file=key, access_key_file=access_key_file)
        return cls(repository.location, passphrase_file=passphrase, access_key_file=access_key_file)

    def put(self, archive: Path) -> str:
        """Store an archive as a restore point; returns its id."""
        words = ("--repository", self.location, "--vm", VM, "--disk", DISK, "--json")
        stored = json.loads(self._run("backup", str(archive), *words, *self._opening("--write-key-file")))
        return str(stored["point"])

    def archives(self) -> list[StoredArchive]:
        """Those that are there, the newest first."""
        opening = self._opening("--key-file")
        points = json.loads(self._run("repository", "list", self.location, "--json", *opening))
        found = [_stored(point) for point in points if point["vm"] == VM]
        return sorted(found, key=lambda one: (one.made_at, one.point), reverse=True)

    def remove(self, point: str) -> None:
        """Give an archive up; a collection frees its room."""
        self._run("repository", "remove", self.location, point, *self._opening("--key-file"))

    def fetch(self, to: Path, point: str | None) -> str:
        """Get an archive back, the newest unless told; returns its id. Raises `NoServerBackupError`."""
        there = self.archives()
        chosen = next((one.point for one in there if point in {None, one.point}), None)
        if chosen is None:
            raise NoServerBackupError(
                f"backup of the server {point}" if point else "backup of the server",
                why=f"there is none in {self.location}",
                remedy=f"It has {', '.join(one.point for one in there)}." if there else "Name another repository.",
            )
        words = ("--repository", self.location, "--vm", VM, "--disk", DISK, "--point", chosen, "--to", str(to))
        self._run("restore", *words, *self._opening("--read-key-file"))
        return chosen

    def _run(self, *words: str) -> str:
        access = access_key(self.access_key_file) if self.access_key_file is not None else {}
        done = subprocess.run(
            [str(proxy_worker()), *words], capture_output=True, text=True, check=False, env=os.environ | access
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            kind = _ENDED_BY.get(done.returncode, ShelfError)
            raise kind("backup of the server", why=said[-1].removeprefix("proxy-worker: "))
        return done.stdout

    def _opening(self, key_option: str) -> list[str]:
        if self.passphrase_file is not None:
            return ["--passphrase-file", str(self.passphrase_file)]
        return [key_option, str(self.key_file)] if self.key_file is not None else []


def _stored(point: dict[str, Any]) -> StoredArchive:
    size_bytes = sum(disk["size_bytes"] for disk in point["disks"])
    return StoredArchive(point["point"], datetime.fromisoformat(point["created"]).timestamp(), size_bytes)
