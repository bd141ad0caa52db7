"""btrfs: a read-only snapshot of the subvolume that the datastore lies in.

The calls are those of `linux/btrfs.h`. A snapshot doesn't reach into subvolumes within the subvolume: VMs whose
folders are subvolumes of their own are missing in it, which `create` notices.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.transport.datastore import Datastore, DiskNotFoundError
from proxy_worker.transport.image import open_image
from proxy_worker.transport.storage_snapshot.provider import (
    StorageSnapshotError,
    StorageSnapshotSettings,
    StorageUnsuitableError,
)
from proxy_worker.transport.storage_snapshot.shelf import failed
from proxy_worker.transport.storage_snapshot.shelved import Shelved
from proxy_worker.transport.vmdk import VmdkError

_SUBVOLUME_INODE: Final = 256
_SNAP_DESTROY: Final = 0x5000940F
_SNAP_CREATE_V2: Final = 0x50009417
_FS_INFO: Final = 0x8400941F
_READ_ONLY: Final = 1 << 1
_CREATE: Final = struct.Struct("=qQQ32x4040s")  # struct btrfs_ioctl_vol_args_v2: fd, transid, flags, unused, name
_DESTROY: Final = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args: fd, name
_ANOTHER: Final = "it doesn't lie on btrfs"


class BtrfsSnapshots(Shelved):
    """`StorageSnapshots` of a datastore in a btrfs subvolume."""

    def __init__(self, datastore: str, path: Path, settings: StorageSnapshotSettings) -> None:
        super().__init__(datastore, path, settings, delete=_destroy)

    def probe(self) -> None:
        """Raise StorageSnapshotError unless the datastore is in a subvolume, and the folder on the same btrfs."""
        self._subvolume()
        self._shelf.prepare()
        if self._file_system(self._path) != self._file_system(self._shelf.folder):
            raise StorageUnsuitableError(
                f"can't keep storage snapshots of datastore {self._name} in {self._shelf.folder}",
                why=f"it is on another file system than {self._path}",
                remedy="Set `folder` to one on the datastore's file system.",
            )

    def create(self, mark: StorageSnapshotMark, paths: Sequence[str]) -> None:
        """Snapshot the subvolume, and see that the disks are in it. Raises as `StorageSnapshots.create`."""
        what = f"can't make storage snapshot {mark.journal} of datastore {self._name}"
        subvolume = self._subvolume()
        self._shelf.prepare()
        partial = self._shelf.begin(mark)
        try:
            if self._shelf.find(mark) is None:
                try:
                    _snapshot(subvolume, partial)
                    self._require_disks(self.frozen(partial), paths)
                    self._shelf.finish(partial, mark)
                finally:
                    self._shelf.discard(partial)
        except OSError as error:
            raise failed(what, error, unsuitable=_ANOTHER) from error

    def inner(self) -> Path:
        """See `Shelved`."""
        return self._path.resolve().relative_to(self._subvolume())

    def _subvolume(self) -> Path:
        """The root of the subvolume that the datastore is in: as high as one device reaches."""
        what = f"can't make storage snapshots of datastore {self._name}"
        try:
            self._file_system(self._path)
            root = self._path.resolve(strict=True)
            device = root.stat().st_dev
            while root.stat().st_ino != _SUBVOLUME_INODE and root.parent.stat().st_dev == device:
                root = root.parent
            inode = root.stat().st_ino
        except OSError as error:
            raise failed(what, error, unsuitable=_ANOTHER) from error
        if inode != _SUBVOLUME_INODE:
            raise StorageUnsuitableError(
                what,
                why=f"{root} is mounted by itself, and is no subvolume",
                remedy="Mount the subvolume that it is in.",
            )
        return root

    def _file_system(self, path: Path) -> bytes:
        """The id of the btrfs that `path` is on. Raises StorageUnsuitableError, StorageSnapshotError."""
        answer = bytearray(1024)  # struct btrfs_ioctl_fs_info_args: max_id, num_devices, fsid, …
        try:
            _ask(path, _FS_INFO, answer)
        except OSError as error:
            what = f"can't make storage snapshots of datastore {self._name} at {path}"
            raise failed(what, error, unsuitable=_ANOTHER) from error
        return bytes(answer[16:32])

    def _require_disks(self, snapshot: Datastore, paths: Sequence[str]) -> None:
        live = Datastore(self._name, self._path)
        for path in paths:
            try:
                open_image(snapshot, path).close()
            except (DiskNotFoundError, VmdkError) as error:
                open_image(live, path).close()  # raises what is wrong with the disk itself, if there is anything
                raise StorageSnapshotError(
                    f"storage snapshot of datastore {self._name} doesn't have {path}",
                    why=f"the disk is there, but perhaps in a subvolume of its own ({error.what})",
                    remedy='Take provider = "reflink" for this datastore.',
                ) from error


def _snapshot(subvolume: Path, target: Path) -> None:
    """Raises OSError."""
    source = os.open(subvolume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        arguments = _CREATE.pack(source, 0, _READ_ONLY, os.fsencode(target.name))
        _ask(target.parent, _SNAP_CREATE_V2, bytearray(arguments))
    finally:
        os.close(source)


def _destroy(path: Path) -> None:
    """Raises OSError."""
    try:
        _ask(path.parent, _SNAP_DESTROY, bytearray(_DESTROY.pack(0, os.fsencode(path.name))))
    except OSError as error:
        if error.errno != errno.ENOENT:  # another has removed it
            raise


def _ask(folder: Path, request: int, argument: bytearray) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, argument, True)  # the answer, if there is one, goes into `argument`
    finally:
        os.close(fd)
