"""Reflinks: copies of the disks' files that share their blocks with them, on XFS and on whatever has FICLONE."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.program.durable import sync_folder
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.image import DiskImage, open_image
from proxy_worker.transport.storage_snapshot.provider import StorageSnapshotSettings
from proxy_worker.transport.storage_snapshot.shelf import failed
from proxy_worker.transport.storage_snapshot.shelved import Shelved
from proxy_worker.transport.vmdk import DESCRIPTOR_LIMIT_BYTES

_FICLONE: Final = 0x40049409  # linux/fs.h
_PROBE_BYTES: Final = 64 << 10
_ANOTHER: Final = "its file system can't share blocks between files, or `folder` is on another"


class ReflinkSnapshots(Shelved):
    """`StorageSnapshots` by copies of the files that the disks consist of."""

    def __init__(self, datastore: str, path: Path, settings: StorageSnapshotSettings) -> None:
        super().__init__(datastore, path, settings, delete=_delete)

    def probe(self) -> None:
        """Raise StorageSnapshotError unless a file can be copied from the datastore to the folder so."""
        self._shelf.prepare()
        name = f".probe-{secrets.token_hex(4)}"
        paths = self._path / f".proxyfleet{name}", self._shelf.folder / name
        what = f"can't make storage snapshots of datastore {self._name} at {self._path}"
        try:
            paths[0].write_bytes(bytes(_PROBE_BYTES))
            source = os.open(paths[0], os.O_RDONLY | os.O_CLOEXEC)
            try:
                _clone(source, paths[1])
            finally:
                os.close(source)
        except OSError as error:
            raise failed(what, error, unsuitable=_ANOTHER) from error
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def create(self, mark: StorageSnapshotMark, paths: Sequence[str]) -> None:
        """Copy the disks' files, durably. Raises as `StorageSnapshots.create`."""
        what = f"can't make storage snapshot {mark.journal} of datastore {self._name}"
        self._shelf.prepare()
        if self._shelf.find(mark) is not None:
            return
        partial = self._shelf.begin(mark)
        try:
            try:
                partial.mkdir(mode=0o700)
                self._copy(paths, partial)
                self._shelf.finish(partial, mark)
            finally:
                self._shelf.discard(partial)
        except OSError as error:
            raise failed(what, error, unsuitable=_ANOTHER) from error

    def _copy(self, paths: Sequence[str], target: Path) -> None:
        """Copy every file of every disk once, to the same place below `target`. Raises OSError, SourceError."""
        live, frozen = Datastore(self._name, self._path), self.frozen(target)
        copied: set[str] = set()
        for path in paths:
            image = open_image(live, path)
            try:
                _copy_files(live, image, target, copied)
            finally:
                image.close()
            open_image(frozen, path).close()  # what can't be opened there would be of no use
        for folder, _, _ in os.walk(target):
            sync_folder(Path(folder))


def _copy_files(datastore: Datastore, image: DiskImage, target: Path, copied: set[str]) -> None:
    files = [image.raw] if image.raw is not None else [file for layer in image.layers for file in layer.files]
    for file in files:
        if file is not None and file.path not in copied:
            copied.add(file.path)
            _clone(file.fd, _place(target, file.path))
    for layer in image.layers:
        if not layer.monolithic and layer.path not in copied:
            copied.add(layer.path)
            with _place(target, layer.path).open("xb") as descriptor:
                descriptor.write(datastore.read_file(layer.path, limit_bytes=DESCRIPTOR_LIMIT_BYTES))
                descriptor.flush()
                os.fsync(descriptor.fileno())


def _place(target: Path, path: str) -> Path:
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _clone(source: int, target: Path) -> None:
    """Raises OSError."""
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(made, _FICLONE, source)
        os.fsync(made)
    finally:
        os.close(made)


def _delete(path: Path) -> None:
    """Raises OSError."""

    def gone(_function: object, _path: str, info: tuple[object, BaseException, object]) -> None:
        if not (isinstance(info[1], OSError) and info[1].errno == errno.ENOENT):  # else another removes it too
            raise info[1]

    shutil.rmtree(path, onerror=gone)
