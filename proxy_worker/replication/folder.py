"""A replica's folder: whether it may be written, and what the product keeps beside the VM's own files.

`.replica/state.json` says what the replica is at the moment, `.replica/<disk>.session` who wrote a disk last, and
`.replica/incoming` has the newest files of the original's configuration. `.points` has the restore points.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Self

import msgspec
from pydantic import ValidationError

from proxy_worker.contract.replication import ReplicaCondition, ReplicaPlace
from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.program.durable import sync_folder
from proxy_worker.replication.durable import put
from proxy_worker.replication.errors import (
    ReplicaAbsentError,
    ReplicaFolderTakenError,
    ReplicaMissingError,
    ReplicaPoweredOnError,
    ReplicaTooLargeError,
    ReplicaUnreachableError,
    ReplicaUnwritableError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import Datastore

LARGEST_CONFIGURATION_BYTES: Final = 1 << 20
_OWN: Final = ".replica"
_POINTS: Final = ".points"
_RUNNING: Final = (".lck", ".vswp")
"""Endings of what ESXi and hosted products keep beside a VM for as long as it runs."""


class ReplicaFolder:
    """The folder of one replica."""

    def __init__(self, place: ReplicaPlace, datastore: Datastore) -> None:
        self.datastore = datastore
        self.path = datastore.root / place.folder
        self.name = f"replica {place.folder} in datastore {place.datastore}"
        self.points = self.path / _POINTS
        self.incoming = self.path / _OWN / "incoming"
        self._place = place

    @classmethod
    def reached(cls, place: ReplicaPlace, connections: Connections) -> Self:
        """The folder, on a proxy that has its datastore mounted. Raises `ReplicaUnreachableError`."""
        connection = connections.datastores.get(place.datastore)
        if connection is None or connection.path is None:
            raise ReplicaUnreachableError(
                f"datastore {place.datastore}",
                why="this proxy has no folder for it, and replicas are written in place",
                remedy=f"Set `path` under [datastores.{place.datastore}] in its proxy.toml.",
            )
        return cls(place, Datastore(place.datastore, connection.path))

    @classmethod
    def around(cls, disk: DiskAddress, connections: Connections) -> Self | None:
        """The folder that a disk lies in, where it has been opened as a replica's. Raises SourceError."""
        connection = connections.datastores.get(disk.datastore or "")
        if disk.datastore is None or connection is None or connection.path is None:
            return None
        path = Datastore(disk.datastore, connection.path).resolve(disk.path or "")
        try:
            place = ReplicaPlace(datastore=disk.datastore, folder=path.partition("/")[0])
        except ValidationError:  # a name that no replica's folder has
            return None
        folder = cls.reached(place, connections)
        return folder if folder._marker_file.exists() else None

    def require_free_for(self, original: str, *, mapped: bool, expected: bool) -> None:
        """Raise unless the folder may be the replica of the VM `original`; nothing is made.

        `mapped`: it is an existing VM's, and has to be there; `expected`: runs have written that replica before.
        An empty folder is begun anew, even so. Raises `ReplicaMissingError`, `ReplicaAbsentError`,
        `ReplicaFolderTakenError`, `ReplicaUnwritableError`.
        """
        found = self._found()
        if mapped:
            if found is None:
                raise ReplicaMissingError(
                    self.name,
                    why="there is no such folder",
                    remedy="Mount its datastore, or map the replica to a VM that exists.",
                )
            return
        if self._marker_file.exists():
            self.require_original(original)
        elif found is not None and (foreign := found - {_OWN, _POINTS}):
            raise ReplicaFolderTakenError(
                self.name,
                why=f"the folder is no replica, and has {min(foreign)}",
                remedy="Choose another suffix, or map the replica to that VM if it is to be overwritten.",
            )
        elif expected and found != set():
            raise self._absent()

    def require_original(self, original: str | None) -> None:
        """Raise `ReplicaFolderTakenError` if it is noted to be another VM's; None: whoever asks doesn't know."""
        noted = self.marker().original
        if None not in {original, noted} and noted != original:
            raise ReplicaFolderTakenError(
                self.name,
                why=f"it is the replica of VM {noted}, not of {original}",
                remedy="Choose another suffix.",
            )

    def prepare(self, *, new: bool = False) -> None:
        """See that the folder has what it needs; made if it is a `new` one, otherwise it has to be a replica's.

        Raises `ReplicaAbsentError`, `ReplicaUnwritableError`.
        """
        if not new and not self._marker_file.exists():
            raise self._absent()
        try:
            for folder in (self.path, self.path / _OWN, self.points):
                folder.mkdir(exist_ok=True)
                sync_folder(folder.parent)
            root = self.datastore.root.resolve(strict=True)
            for folder in (self.path, self.path / _OWN, self.points):
                if folder.resolve(strict=True) != root / folder.relative_to(self.datastore.root):
                    raise ReplicaUnwritableError(self.name, why=f"{folder.name} is a link to another place")
        except OSError as error:
            raise self.unwritable(error) from error

    def session_file(self, disk_key: str) -> Path:
        """What the writers of a disk lock."""
        return self.path / _OWN / f"{disk_key.replace(':', '-')}.session"

    def marker(self) -> Marker:
        """What is noted. Raises `ReplicaUnwritableError` when that can't be read."""
        try:
            return msgspec.json.decode(self._marker_file.read_bytes(), type=Marker)
        except FileNotFoundError:
            return Marker()
        except (OSError, msgspec.MsgspecError) as error:
            raise ReplicaUnwritableError(
                self.name, why=f"{self._marker_file} can't be read: {error}", remedy="Restore it, or remove it."
            ) from error

    def note(self, marker: Marker) -> None:
        """Note something else, durably. Raises `ReplicaUnwritableError`."""
        try:
            put(self._marker_file, msgspec.json.encode(marker))
        except OSError as error:
            raise self.unwritable(error) from error

    def require_standby(self) -> Marker:
        """Raise unless runs may write the replica: `ReplicaFailedOverError` and others that say why not."""
        marker = self.require_whole()
        marker.require_standby(
            self.name,
            ways_out="Undo the failover, fail back, or make it permanent.",
            elsewhere="Replicate to another folder.",
        )
        self.require_off()
        return marker

    def require_whole(self) -> Marker:
        """Raise `ReplicaRevertingError` while it is half reverted to a restore point."""
        marker = self.marker()
        marker.require_whole(self.name)
        return marker

    def require_sendable(self, vm: str) -> None:
        """Raise unless its disks may be sent as those of a VM of this id.

        In a failback that is its original's, and it has to be off: `ReplicaPoweredOnError`. A half reverted one is
        sent nowhere: `ReplicaRevertingError`.
        """
        marker = self.require_whole()
        if marker.condition is ReplicaCondition.FAILED_OVER and marker.original in {None, vm}:
            self.require_off()

    def require_off(self) -> None:
        """Raise `ReplicaPoweredOnError` while the replica runs, by what lies beside it."""
        for entry in sorted(self.path.iterdir()) if self.path.is_dir() else ():
            if entry.name.endswith(_RUNNING) or entry.name.startswith(_RUNNING[0]):
                raise ReplicaPoweredOnError(
                    self.name,
                    why=f"it is powered on: there is {entry.name}",
                    remedy="Power it off; if it is off, remove what was left.",
                )

    @property
    def free_bytes(self) -> int:
        """What the datastore has left. Raises `ReplicaUnwritableError`."""
        try:
            return shutil.disk_usage(self.datastore.root).free
        except OSError as error:
            raise self.unwritable(error) from error

    def require_room(self, what: str, needed_bytes: int) -> None:
        """Raise `ReplicaTooLargeError` unless the datastore has so much left."""
        free = self.free_bytes
        if needed_bytes > free:
            raise ReplicaTooLargeError(
                f"{what} doesn't fit into datastore {self._place.datastore}",
                why=f"it takes {needed_bytes} bytes, and {free} are free",
                remedy="Free some, or replicate to another datastore.",
            )

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of the original's configuration. Raises `ReplicaUnwritableError`."""
        try:
            self.incoming.mkdir(exist_ok=True)
            put(self.incoming / name, content)
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> ReplicaUnwritableError:
        """The error for a file of it that can't be written."""
        return ReplicaUnwritableError(self.name, why=str(error))

    def _found(self) -> set[str] | None:
        """The names of what lies in it, None where there is no such folder."""
        try:
            return {entry.name for entry in self.path.iterdir()}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.unwritable(error) from error

    def _absent(self) -> ReplicaAbsentError:
        return ReplicaAbsentError(
            self.name,
            why=f"it isn't there any more: {self._marker_file} is missing",
            remedy="Mount its datastore; if it was removed for good, make an empty folder in its place.",
        )

    @property
    def _marker_file(self) -> Path:
        return self.path / _OWN / "state.json"
