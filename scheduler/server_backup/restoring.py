"""A backup of the server laid out in a folder, from which `scheduler serve` goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import tomlkit
from sqlalchemy import select

from scheduler.server_backup.archive import Archive, File, Manifest, Rows
from scheduler.server_backup.errors import ArchiveDamagedError, RestoreTargetError
from scheduler.server_backup.making import FILES, IN_ARCHIVE, SECRETS, STATE
from scheduler.server_backup.tables import Filling
from scheduler.state.access import DatabaseAccess
from scheduler.state.asking import ask_for_upkeep
from scheduler.state.models import Repository, RequestKind, ServiceMark
from scheduler.state.store import open_state

EPOCHS_SKIPPED: Final = 1000
"""The dead server may have opened epochs since its backup: one for each loss of Redis, never so many."""
CONFIGURATION: Final = "scheduler.toml"
_DATABASE_CREDENTIAL: Final = "restored-database"
"""The secret with the password of the database that the server was restored to."""
_FOLDERS: Final = (STATE, SECRETS, FILES)


@dataclass(frozen=True)
class Restored:
    """A server that was restored."""

    folder: Path
    made_at: float
    """When the backup was made, in Unix seconds."""
    host: str
    """Where."""
    files: int
    rows: int
    database: str


def restore_server(
    archive_path: Path, passphrase: bytes, folder: Path, database: DatabaseAccess | None = None
) -> Restored:
    """Lay the server out in `folder`, new or empty, and fill its database: there, or an empty PostgreSQL.

    What serves from it opens epochs above all that the dead server can have used, and looks first for restore
    points that were made after the backup. Raises `RestoreTargetError`, `RecoveryPassphraseError`,
    `ArchiveDamagedError`, `ArchiveVersionError`, and the database's errors; then nothing is left in `folder`, nor
    in the database.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RestoreTargetError(
            f"{folder}", why="it is not empty, and nothing is written over", remedy="Give another folder."
        )
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        draft.mkdir(parents=True, mode=0o700)
        restored = _lay_out(archive_path, passphrase, draft, folder, database)
    except OSError as error:
        raise RestoreTargetError(f"{folder}", why=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return restored


def _lay_out(
    archive_path: Path, passphrase: bytes, draft: Path, folder: Path, database: DatabaseAccess | None
) -> Restored:
    for name in _FOLDERS:
        (draft / name).mkdir(mode=0o700)
    with Archive(archive_path, passphrase) as archive:
        manifest = archive.manifest
        access = database or DatabaseAccess(f"sqlite:///{draft / STATE / 'scheduler.db'}")
        counts = _Counts()
        with Filling(access, manifest.schema) as filling:
            filling.fill(_rows(archive, draft, counts))
            _prepare_to_serve(access)
            _write_settings(manifest, draft, folder, database)
            draft.rename(folder)
    return Restored(
        folder=folder,
        made_at=manifest.made_at,
        host=manifest.host,
        files=counts.files,
        rows=counts.rows,
        database=database.url if database else str(folder / STATE / "scheduler.db"),
    )


@dataclass
class _Counts:
    files: int = 0
    rows: int = 0


def _rows(archive: Archive, draft: Path, counts: _Counts) -> Iterator[Rows]:
    """The rows of an archive; its files are written on the way."""
    for record in archive.contents():
        if isinstance(record, File):
            _write(draft, record)
            counts.files += 1
        else:
            counts.rows += len(record.rows)
            yield record


def _write(draft: Path, file: File) -> None:
    place = PurePosixPath(file.name)
    if place.is_absolute() or ".." in place.parts or place.parts[0] not in _FOLDERS:
        raise ArchiveDamagedError("backup of the server", why=f"it holds a file for {file.name!r}")
    path = draft / place
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(file.content)
        opened.flush()
        os.fsync(opened.fileno())
    path.chmod(file.mode)


def _write_settings(manifest: Manifest, draft: Path, folder: Path, database: DatabaseAccess | None) -> None:
    if database is not None and database.password is not None:
        (draft / SECRETS / _DATABASE_CREDENTIAL).unlink(missing_ok=True)  # of an earlier restore
        _write(draft, File(f"{SECRETS}/{_DATABASE_CREDENTIAL}", 0o600, database.password.encode()))
    settings = _settings(manifest.configuration, folder, database)
    (draft / CONFIGURATION).write_text(
        f"# Restored from a backup of {manifest.host}.\n{tomlkit.dumps(settings)}", encoding="utf-8"
    )
    (draft / CONFIGURATION).chmod(0o600)


def _prepare_to_serve(access: DatabaseAccess) -> None:
    state = open_state(access, migrate=True)
    with state.write() as session:
        mark = session.get(ServiceMark, 1) or ServiceMark(id=1, epoch=0)
        session.add(mark)
        mark.epoch += EPOCHS_SKIPPED
        for name in session.scalars(select(Repository.name)).all():
            ask_for_upkeep(session, RequestKind.RESCAN, name, now=time.time())
    state.close()


def _settings(placed: dict[str, Any], folder: Path, database: DatabaseAccess | None) -> dict[str, Any]:
    """scheduler.toml for the restored server: its paths lie in `folder` now."""

    def place(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: place(inner) for name, inner in value.items() if inner is not None}
        if isinstance(value, str) and value.startswith(IN_ARCHIVE):
            return str(folder / value.removeprefix(IN_ARCHIVE))
        return value

    settings: dict[str, Any] = {
        name: value for name, value in place(placed).items() if not name.startswith("database_")
    }
    if database is None:
        return settings
    reached = {"database_url": database.url}
    if database.password is not None:
        reached["database_credential"] = _DATABASE_CREDENTIAL
    if database.ca_file is not None:
        reached["database_ca_file"] = str(database.ca_file.resolve())
    return reached | settings
