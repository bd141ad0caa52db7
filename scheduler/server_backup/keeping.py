"""One backup of the server, from its archive to its place in the repository, and what is given up for it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.program.settings import read_secret
from scheduler.configuration import SchedulerConfiguration
from scheduler.planning.retention import HeldPoint, judge
from scheduler.server_backup.errors import (
    RecoveryPassphraseError,
    ServerBackupOffError,
    ServerBackupRunningError,
    ServerFileError,
)
from scheduler.server_backup.making import FOLDER, make_archive
from scheduler.server_backup.shelf import Shelf
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import Repository, ServiceMark
from scheduler.state.store import State


@dataclass(frozen=True)
class Kept:
    """A backup of the server that was made."""

    repository: str
    point: str
    size_bytes: int
    removed: tuple[str, ...]
    """Older ones that were given up."""


def back_up_server(configuration: SchedulerConfiguration, state: State) -> Kept:
    """Make and store an archive, give up those that are kept no longer, and note how it went.

    Raises `ServerBackupOffError`, `ServerBackupRunningError`, `RecoveryPassphraseError`, `ServerFileError` when
    there is no room for it, and what making and storing raise.
    """
    began = time.time()
    place = configuration.state_dir / FOLDER
    with _explained(place), _alone(place) as folder:
        _note(state, tried_at=began)
        try:
            with _explained(folder):
                kept = _back_up(configuration, state, folder)
        except ProxyfleetError as error:
            _note(state, failure=str(error))
            raise
        _note(state, done_at=began)
    return kept


def shelf_of(configuration: SchedulerConfiguration, session: Session) -> Shelf:
    """Where the server's backups are; raises `ServerBackupOffError` or `NoSuchRepositoryError`."""
    name = configuration.server_backup.repository
    if name is None:
        raise ServerBackupOffError(
            "backup of the server",
            why="no repository is named for it",
            remedy="Name one in scheduler.toml: `repository` below [server_backup].",
        )
    repository = session.get(Repository, name)
    if repository is None:
        raise NoSuchRepositoryError(
            f"repository {name!r} of [server_backup]",
            why="no repository has that name",
            remedy="`scheduler repository list` shows them.",
        )
    return Shelf.of(repository, configuration)


def recovery_passphrase(configuration: SchedulerConfiguration, session: Session) -> bytes:
    """What archives are sealed with; raises `RecoveryPassphraseError` when there is no such secret."""
    settings = configuration.server_backup
    repository = session.get(Repository, settings.repository)
    credential = settings.recovery_credential or (repository.credential if repository is not None else None)
    if credential is None:
        raise RecoveryPassphraseError(
            "backup of the server",
            why="there is nothing to seal it with: its repository isn't encrypted",
            remedy="Name a secret by `recovery_credential` below [server_backup].",
        )
    path = configuration.secrets_dir / f"{credential}.passphrase"
    if settings.recovery_credential is None and not path.exists():
        raise RecoveryPassphraseError(
            "backup of the server",
            why=f"there is nothing to seal it with: its repository's passphrase isn't in {path}",
            remedy="Put it there, or name another secret by `recovery_credential` below [server_backup].",
        )
    passphrase = read_secret(path, "recovery passphrase for the server's backup")
    if not passphrase:
        raise RecoveryPassphraseError(f"recovery passphrase in {path}", why="the file is empty")
    return passphrase.encode()


def _back_up(configuration: SchedulerConfiguration, state: State, folder: Path) -> Kept:
    with state.read() as session:
        shelf = shelf_of(configuration, session)
        passphrase = recovery_passphrase(configuration, session)
    archive = folder / "server.archive"
    archive.unlink(missing_ok=True)
    try:
        make_archive(configuration, state, archive, passphrase)
        size_bytes = archive.stat().st_size
        point = shelf.put(archive)
    finally:
        archive.unlink(missing_ok=True)
    settings = configuration.server_backup
    held = [HeldPoint(one.point, one.made_at) for one in shelf.archives()]
    verdicts = judge(held, settings.retention, now=time.time(), timezone=settings.timezone)
    removed = tuple(verdict.point.point for verdict in verdicts if not verdict.kept)
    for old in removed:
        shelf.remove(old)
    return Kept(settings.repository or "", point, size_bytes, removed)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Have the file system's refusals raised as `ServerFileError`."""
    try:
        yield
    except OSError as error:
        raise ServerFileError(
            f"file {error.filename or folder}",
            why=error.strerror or str(error),
            remedy=f"See that {folder} has room, and that the scheduler's user may write there.",
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The folder for the archive, which only one process at a time uses."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ServerBackupRunningError(
            "backup of the server", why="one is being made", remedy="Wait for its end."
        ) from error
    try:
        yield folder
    finally:
        os.close(descriptor)


def _note(
    state: State, *, tried_at: float | None = None, done_at: float | None = None, failure: str | None = None
) -> None:
    with state.write() as session:
        mark = session.get(ServiceMark, 1) or ServiceMark(id=1, epoch=0)
        session.add(mark)
        mark.backup_failure = failure
        mark.backup_tried_at = tried_at or mark.backup_tried_at
        mark.backed_up_at = done_at or mark.backed_up_at
