"""A replica's disk: made where there is none, grown with its source, and open for a session."""

from __future__ import annotations

import os
import re
from typing import Final

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.subjects import DiskIdentity
from proxy_worker.program.closing import Closing
from proxy_worker.program.durable import sync_folder
from proxy_worker.replication.durable import put
from proxy_worker.replication.errors import ReplicaDiskSizeError, ReplicaUnwritableError
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.home import Seen
from proxy_worker.replication.table import Looks
from proxy_worker.transport.datastore import DiskNotFoundError
from proxy_worker.transport.direct import DirectSource
from proxy_worker.transport.image import DiskImage, is_raw_name, open_image
from proxy_worker.transport.vmdk import DESCRIPTOR_LIMIT_BYTES, SECTOR_BYTES
from proxy_worker.transport.writing_direct import DirectSink

_PRIVATE: Final = 0o600
_EXTENT: Final = re.compile(rb'^RW (\d+) (FLAT|VMFS) "', re.MULTILINE)
_DESCRIPTOR: Final = """# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {sectors} VMFS "{flat}"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.thinProvisioned = "1"
ddb.virtualHWVersion = "19"
"""


class ReplicaDisk:
    """A disk of a replica, by its address; opened by `open`."""

    def __init__(self, folder: ReplicaFolder, identity: DiskIdentity) -> None:
        self.identity = identity
        self.path = folder.datastore.resolve(identity.address.path or "")
        self.name = f"disk {identity.key} of {folder.name}"
        self._folder = folder

    @property
    def exists(self) -> bool:
        """Whether there is such a disk, even if it can't be opened. Raises SourceError."""
        try:
            open_image(self._folder.datastore, self.path).close()
        except DiskNotFoundError:
            return False
        return True

    def look(self) -> Seen | None:
        """What it looks like, None where there is none. Raises as `open` does."""
        if not self.exists:
            return None
        with self.open() as found:
            return Seen(found.looks_after(None), found.size_bytes, found.allocated_bytes)

    def make(self, size_bytes: int) -> None:
        """Make it: a sparse flat VMDK, or a raw image. What a killed making has left is taken over.

        Raises `ReplicaUnwritableError`, `ReplicaDiskSizeError`.
        """
        place = self._folder.datastore.root / self.path
        if place.parent != self._folder.path:
            raise ReplicaUnwritableError(self.name, why=f"{self.path} doesn't lie in the replica's folder")
        raw = is_raw_name(self.path)
        if not raw and size_bytes % SECTOR_BYTES:
            raise ReplicaDiskSizeError(
                self.name, why=f"a VMDK has whole sectors, and its source {size_bytes} bytes"
            )
        flat = place if raw else place.with_name(f"{place.stem}-flat.vmdk")
        try:
            file = os.open(flat, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
            try:
                os.ftruncate(file, size_bytes)
                os.fsync(file)
            finally:
                os.close(file)
            if raw:
                sync_folder(place.parent)
            else:
                put(place, _descriptor(flat.name, size_bytes // SECTOR_BYTES))
        except OSError as error:
            raise ReplicaUnwritableError(self.name, why=str(error)) from error

    def grow(self, size_bytes: int) -> None:
        """Make it larger, as its source was. Raises `ReplicaUnwritableError`, `ReplicaDiskSizeError`."""
        image = open_image(self._folder.datastore, self.path)
        try:
            if image.raw is None and (not _is_one_flat_file(image) or size_bytes % SECTOR_BYTES):
                raise ReplicaDiskSizeError(
                    self.name,
                    why=f"it has {image.size_bytes} bytes, its source {size_bytes}, and it can't be made larger",
                    remedy="Make it as large, or begin a new replica.",
                )
            opened = image.raw or image.layers[0].files[0]
            file = os.open(f"/proc/self/fd/{opened.fd if opened else -1}", os.O_RDWR | os.O_CLOEXEC)
            try:
                os.ftruncate(file, size_bytes)
                os.fsync(file)
            finally:
                os.close(file)
            if image.raw is None:
                before = self._folder.datastore.read_file(self.path, limit_bytes=DESCRIPTOR_LIMIT_BYTES)
                sectors = b"%d" % (size_bytes // SECTOR_BYTES)
                after = _EXTENT.sub(lambda found: b'RW %b %b "' % (sectors, found[2]), before, count=1)
                put(self._folder.datastore.root / self.path, after)
        except OSError as error:
            raise ReplicaUnwritableError(self.name, why=str(error)) from error
        finally:
            image.close()

    def open(self) -> OpenDisk:
        """Open it for one session. Raises SourceError, NotFoundError, TargetError, `DiskHeldError`."""
        return OpenDisk(self, self._folder)


class OpenDisk(Closing):
    """A replica's disk, open to read and to write."""

    def __init__(self, disk: ReplicaDisk, folder: ReplicaFolder) -> None:
        self.name = disk.name
        self._image = open_image(folder.datastore, disk.path)
        try:
            self.sink = DirectSink(open_image(folder.datastore, disk.path), reason="direct_storage")
        except BaseException:
            self._image.close()
            raise
        self.source = DirectSource(self._image, reason="direct_storage")
        self.size_bytes = self._image.size_bytes

    def looks_after(self, _kept: str | None) -> Looks:
        """What its file looks like now: whoever writes to it changes that."""
        return Looks.of(self._file)

    @property
    def allocated_bytes(self) -> int:
        """What it takes on its datastore now."""
        return os.fstat(self._file).st_blocks * 512

    def close(self) -> None:
        """Close its files. May be called again."""
        self.sink.close()
        self.source.close()

    @property
    def _file(self) -> int:
        file = self._image.raw or self._image.layers[0].files[0]
        if file is None:  # an extent of zeros, which a sink doesn't accept
            raise NotFoundError(self.name, why="it has no file")
        return file.fd


def _is_one_flat_file(image: DiskImage) -> bool:
    return image.is_flat and len(image.layers) == 1 and len(image.layers[0].descriptor.extents) == 1


def _descriptor(flat: str, sectors: int) -> bytes:
    cylinders = max(1, sectors // (255 * 63))
    return _DESCRIPTOR.format(sectors=sectors, flat=flat, cylinders=cylinders).encode()
