"""Making an archive of this server: what belongs to it, and where it is found again after a restore."""

from __future__ import annotations

import importlib.metadata
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scheduler.configuration import SchedulerConfiguration
from scheduler.server_backup.archive import VERSION, Content, File, Manifest, write_archive
from scheduler.server_backup.errors import ServerFileError
from scheduler.server_backup.tables import read_tables, schema_of
from scheduler.state.store import State

FOLDER: Final = "server-backup"
"""In the state folder: where an archive lies until it is in the repository."""
IN_ARCHIVE: Final = "archive:"
"""Stands before a path of the archive in the settings that it holds."""
STATE, SECRETS, FILES = "state", "secrets", "files"
_OF_THIS_MACHINE: Final = frozenset({"local-proxy", FOLDER})
"""What a restored server makes anew: a proxy's identity must never be copied."""
_LARGEST_FILE_BYTES: Final = 16 << 20


def make_archive(configuration: SchedulerConfiguration, state: State, path: Path, passphrase: bytes) -> None:
    """Write an archive of the server to `path`, as it is at one moment, while it goes on serving.

    Raises `ServerFileError` and the database's errors.
    """
    files = server_files(configuration)
    folders = {"state_dir": configuration.state_dir, "secrets_dir": configuration.secrets_dir}
    settings = folders | configuration.model_dump(exclude_defaults=True)
    with state.read() as session:
        manifest = Manifest(
            version=VERSION,
            made_at=time.time(),
            host=socket.gethostname(),
            product=importlib.metadata.version("proxyfleet"),
            schema=schema_of(session),
            configuration=_placed(settings, _places(configuration)),
        )
        write_archive(path, passphrase, manifest, _contents(files, read_tables(session)))


def server_files(configuration: SchedulerConfiguration) -> dict[Path, str]:
    """The files of the server, each with its name in the archive.

    Those in the state folder (but for the database, which is read as rows, and what belongs to this machine alone),
    in the secrets folder, and whatever file or folder the configuration names besides.
    """
    found: dict[Path, str] = {}
    roots = _roots(configuration)
    for place, name in _places(configuration).items():
        inner = [root for root in roots if root != place and root.is_relative_to(place)]
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if any(path.is_relative_to(root) for root in inner):
                continue
            within = path.relative_to(place)
            own = name == STATE and (within.parts[0] in _OF_THIS_MACHINE or _is_database(path))
            if path.is_file() and not own:
                found.setdefault(path, f"{name}/{within}" if within.parts else name)
    return found


def _roots(configuration: SchedulerConfiguration) -> dict[Path, str]:
    """The folders that are restored as such; one that lies in another comes first, and its files are its own."""
    roots = {configuration.secrets_dir: SECRETS, configuration.state_dir: STATE}
    return dict(sorted(roots.items(), key=lambda root: len(root[0].parts), reverse=True))


def _places(configuration: SchedulerConfiguration) -> dict[Path, str]:
    """Where the server's files are, and their names in the archive; its own proxy's datastores are none of it."""
    roots = _roots(configuration)
    places = dict(roots)
    for key, path in _paths(configuration.model_dump(exclude={"local_proxy"})):
        root = next((root for root in roots if path.is_relative_to(root)), None)
        name = f"{roots[root]}/{path.relative_to(root)}" if root is not None else f"{FILES}/{key}{path.suffix}"
        places.setdefault(path, name)
    return places


def _is_database(path: Path) -> bool:
    """Whether it is an SQLite database, what belongs to one, or a lock."""
    return path.suffix in {".db", ".lock"} or path.name.endswith((".db-wal", ".db-shm"))


def _paths(value: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    """Every path in the settings, with its key: `redis.ca_file`."""
    if isinstance(value, Path):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, f"{key}.{name}" if key else str(name))


def _placed(settings: dict[str, Any], places: dict[Path, str]) -> dict[str, Any]:
    """The settings with the paths of the archive; other paths stay as they are."""

    def place(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: place(inner) for name, inner in value.items()}
        if isinstance(value, Path):
            return f"{IN_ARCHIVE}{places[value]}" if value in places else str(value)
        return list(map(place, value)) if isinstance(value, (list, tuple)) else value

    return {name: place(value) for name, value in settings.items()}


def _contents(files: dict[Path, str], rows: Iterator[Content]) -> Iterator[Content]:
    for path, name in files.items():
        try:
            status = path.stat()
            if status.st_size > _LARGEST_FILE_BYTES:
                raise ServerFileError(
                    f"file {path}",
                    why=f"it is larger than {_LARGEST_FILE_BYTES >> 20} MiB, so it hardly belongs to the server",
                    remedy="Move it out of the state and secrets folders.",
                )
            yield File(name, status.st_mode & 0o777, path.read_bytes())
        except FileNotFoundError:
            continue  # it has gone meanwhile
        except OSError as error:
            raise ServerFileError(
                f"file {path}", why=error.strerror or str(error), remedy="Let the scheduler's user read it."
            ) from error
    yield from rows
