"""A replica's restore points: copies of all its files in `.points/<run>`, each there whole or not at all.

Made after a run, when its disks are whole and before anything writes them again, so that the newest one is always
good. Reverting goes file by file, each put in its place by one rename; that it has begun is noted before, and that
it is done afterwards, so that a half reverted replica is never taken for a whole one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.contract.replication_outcome import ReplicaPointSummary
from proxy_worker.contract.subjects import DiskIdentity
from proxy_worker.program.durable import sync_folder
from proxy_worker.replication.copying_files import can_share, copy_file
from proxy_worker.replication.durable import put
from proxy_worker.replication.errors import ReplicaPointMissingError, ReplicaUnwritableError
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.home import Marker
from proxy_worker.replication.session_lock import nobody_writes
from proxy_worker.transport.image import open_image

_RECORD: Final = "point.json"
_CONFIGURATION: Final = (".vmx", ".nvram")
_SESSIONS: Final = "*.session"
_LOCK: Final = "points.lock"
_PATIENCE_S: Final = 60.0
"""For what else is done to restore points of the same replica."""

GoOn = Callable[[], None]
"""Called between pieces of long work; may raise."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    """Within the datastore."""
    stored: str
    """In the point's folder."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    created_at: float
    reflinked: bool
    size_bytes: int
    files: tuple[_File, ...]


class Points:
    """The restore points of one replica, whose folder is prepared."""

    def __init__(self, folder: ReplicaFolder, go_on: GoOn) -> None:
        self._folder = folder
        self._go_on = go_on

    def all(self) -> tuple[ReplicaPointSummary, ...]:
        """Every one, oldest first. Raises `ReplicaUnwritableError`."""
        try:
            runs = [path.parent.name for path in self._folder.points.glob(f"[!.]*/{_RECORD}")]
        except OSError as error:
            raise self._folder.unwritable(error) from error
        return tuple(sorted((self._summary(run) for run in runs), key=lambda point: (point.created_at, point.run)))

    def make(self, run: str, disks: Iterable[DiskIdentity], write_configuration: Callable[[], None]) -> None:
        """Keep the replica as it is now, after its configuration was written; one that is there stays as it is.

        Raises `ReplicaBusyError`, `ReplicaTooLargeError`, `ReplicaUnwritableError`, SourceError, NotFoundError.
        """
        if self._place(run).is_dir():
            return
        with self._alone(), self._nobody_writes(disks):
            write_configuration()
            paths, size_bytes = self._files(disks)
            shares = can_share(self._folder.points)
            if not shares:
                self._folder.require_room(f"restore point {run} of {self._folder.name}", self._allocated(paths))
            partial = self._folder.points / f".{run}"
            partial.mkdir()
            files = [_File(path, f"{number}-{Path(path).name}") for number, path in enumerate(paths)]
            for file in files:
                self._go_on()
                self._copy(self._folder.datastore.root / file.path, partial / file.stored)
            record = _Record(time.time(), shares, size_bytes, tuple(files))
            put(partial / _RECORD, msgspec.json.encode(record))
            partial.rename(self._place(run))
            sync_folder(self._folder.points)

    def remove(self, run: str) -> bool:
        """Remove one; returns whether it was there.

        Raises `ReplicaRevertingError` for the one that the replica is half reverted to, `ReplicaBusyError`,
        `ReplicaUnwritableError`.
        """
        if not self._folder.points.is_dir():
            return False
        with self._alone():
            if self._folder.marker().run == run:
                self._folder.require_whole()
            partial = self._folder.points / f".{run}"
            found = self._place(run).is_dir()
            if found:
                self._place(run).rename(partial)
                sync_folder(self._folder.points)
                shutil.rmtree(partial)
            return found

    def revert(self, run: str, condition: ReplicaCondition) -> None:
        """Make the replica what it was at a restore point, and note its condition.

        Done again, it changes nothing. Raises `ReplicaPointMissingError`, `ReplicaPoweredOnError`,
        `ReplicaBusyError`, `ReplicaTooLargeError`, `ReplicaUnwritableError`.
        """
        before = self._folder.marker()
        done = Marker(condition, run, original=before.original)
        if before == done:
            return
        record = self._record(run)
        self._folder.require_off()
        with self._alone(), self._nobody_writes(()):
            if not record.reflinked:
                stored = (f"{self._place(run).relative_to(self._root)}/{file.stored}" for file in record.files)
                largest = max((self._allocated([path]) for path in stored), default=0)
                self._folder.require_room(f"reverting {self._folder.name}", largest)
            self._folder.note(msgspec.structs.replace(done, reverting=True))
            for file in record.files:
                self._go_on()
                target = self._root / file.path
                fresh = target.with_name(f".{target.name}.reverted")
                fresh.unlink(missing_ok=True)
                self._copy(self._place(run) / file.stored, fresh)
                fresh.rename(target)
                sync_folder(target.parent)
            self._folder.note(done)

    def remove_all(self) -> None:
        """Remove every one, and what was left of some. Raises `ReplicaUnwritableError`."""
        with self._alone():
            for entry in list(self._folder.points.iterdir()):
                shutil.rmtree(entry)

    @property
    def _root(self) -> Path:
        return self._folder.datastore.root

    def _place(self, run: str) -> Path:
        return self._folder.points / run

    def _summary(self, run: str) -> ReplicaPointSummary:
        record = self._record(run)
        return ReplicaPointSummary(
            run=run, created_at=record.created_at, reflinked=record.reflinked, size_bytes=record.size_bytes
        )

    def _record(self, run: str) -> _Record:
        try:
            return msgspec.json.decode((self._place(run) / _RECORD).read_bytes(), type=_Record)
        except FileNotFoundError as error:
            raise ReplicaPointMissingError(
                f"restore point {run} of {self._folder.name}", why="there is none of that name"
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise ReplicaUnwritableError(f"restore point {run} of {self._folder.name}", why=str(error)) from error

    def _files(self, disks: Iterable[DiskIdentity]) -> tuple[list[str], int]:
        """The files of the replica's disks and its configuration, and the disks' size."""
        found: dict[str, None] = {}
        size_bytes = 0
        for disk in disks:
            image = open_image(self._folder.datastore, disk.address.path or "")
            try:
                size_bytes += image.size_bytes
                found |= dict.fromkeys(layer.path for layer in image.layers)
                files = [image.raw, *(file for layer in image.layers for file in layer.files)]
                found |= dict.fromkeys(file.path for file in files if file is not None)
            finally:
                image.close()
        for entry in sorted(self._folder.path.iterdir()):
            if entry.name.lower().endswith(_CONFIGURATION):
                found[str(entry.relative_to(self._root))] = None
        return list(found), size_bytes

    def _allocated(self, paths: Iterable[str]) -> int:
        return sum((self._root / path).stat().st_blocks * 512 for path in paths)

    def _copy(self, source: Path, target: Path) -> None:
        opened = self._folder.datastore.open_file(str(source.relative_to(self._root)))
        try:
            made = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                copy_file(opened.fd, made, self._go_on)
            finally:
                os.close(made)
        finally:
            opened.close()

    @contextmanager
    def _nobody_writes(self, disks: Iterable[DiskIdentity]) -> Iterator[None]:
        sessions = {self._folder.session_file(disk.key) for disk in disks}
        sessions |= set(self._folder.incoming.parent.glob(_SESSIONS))
        with nobody_writes(sorted(sessions), self._folder.name):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from making, removing and using points, and remove what killed ones have left."""
        try:
            lock = [self._folder.incoming.parent / _LOCK]
            with nobody_writes(lock, self._folder.name, patience_s=_PATIENCE_S, go_on=self._go_on):
                for left in self._folder.points.glob(".*"):
                    shutil.rmtree(left)
                yield
        except OSError as error:
            raise self._folder.unwritable(error) from error
