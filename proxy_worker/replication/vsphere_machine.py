"""A VM of a vCenter that sessions write while it is off: a replica, or the original that a failback changes.

Its restore points are snapshots that carry our mark. Sessions write the newest file of each disk's chain over the
network, so that beneath a point nothing changes.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.replication import ReplicaPlace, VsphereHome
from proxy_worker.contract.replication_outcome import ReplicaPointSummary
from proxy_worker.replication.errors import (
    ReplicaBusyError,
    ReplicaPointMissingError,
    ReplicaPoweredOnError,
    ReplicaTooLargeError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.faults import DiskLockedError, VmBusyError
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.model import SnapshotNode, Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting


@dataclass(frozen=True, slots=True)
class AtVcenter:
    """Such a VM, with a session to its vCenter."""

    session: Session
    vm: Vm


class VsphereMachine(ABC):
    """One such VM; thread-safe, as it keeps nothing."""

    def __init__(
        self, name: str, place: ReplicaPlace, home: VsphereHome, access: VsphereAccess, waiting: Waiting
    ) -> None:
        self.name = name
        self.home = home
        self.access = access
        self._place = place
        self._waiting = waiting

    @abstractmethod
    def require_standby(self) -> Marker:
        """Raise unless it may be written: errors that say why not."""

    @abstractmethod
    def note(self, marker: Marker) -> None:
        """Note something else of it."""

    @abstractmethod
    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of its source's configuration."""

    @abstractmethod
    def session_noted(self, at: AtVcenter, disk_key: str) -> str | None:
        """The session that wrote one of its disks last, where that is known."""

    @abstractmethod
    def note_session(self, at: AtVcenter, disk_key: str, session: str) -> None:
        """Note which session writes one of its disks from now on."""

    @abstractmethod
    def _found(self, session: Session) -> Vm | None:
        """Its VM as it is now."""

    @abstractmethod
    def _require_found(self, vm: Vm | None) -> Vm:
        """The VM; raises where there is none."""

    @contextlib.contextmanager
    def there(self) -> Iterator[AtVcenter]:
        """Its VM as it is now; raises what `_found` and `_require_found` do, and `ReplicaBusyError`."""
        with self._session() as session:
            yield AtVcenter(session, self._require_found(self._found(session)))

    def require_room(self, what: str, needed_bytes: int) -> None:
        """Raise `ReplicaTooLargeError` unless its datastore has so much left."""
        datastore, free = self._room()
        if needed_bytes > free:
            raise ReplicaTooLargeError(
                f"{what} doesn't fit into datastore {datastore} of vCenter {self.home.vcenter.name}",
                why=f"it takes {needed_bytes} bytes, and {free} are free",
                remedy="Free some, or replicate to another datastore.",
            )

    def free_bytes(self) -> int:
        """What its datastore has left."""
        return self._room()[1]

    def points(self) -> tuple[ReplicaPointSummary, ...]:
        """Its restore points, oldest first."""
        with self.there() as at:
            size = sum(disk.size_bytes for disk in at.vm.disks)
            return tuple(
                ReplicaPointSummary(run=run, created_at=node.created_at, reflinked=True, size_bytes=size)
                for run, node in self._points(at.vm).items()
            )

    def _room(self) -> tuple[str, int]:
        """Its datastore, which isn't the one that it was made in once it was moved, and what that has left."""
        with self.there() as at:
            lies_in = [split_path(disk.path)[0] for disk in at.vm.disks if disk.path is not None]
            datastore = self.home.datastore if self.home.datastore in lies_in else next(iter(lies_in), "")
            return datastore, replica_vm.free_bytes(at.session, at.vm, datastore)

    def _points(self, vm: Vm) -> dict[str, SnapshotNode]:
        return replica_vm.points_of(vm, self.home.mark)

    def _point(self, vm: Vm, run: str) -> SnapshotNode:
        point = self._points(vm).get(run)
        if point is None:
            raise ReplicaPointMissingError(f"restore point {run} of {self.name}", why="it has no such snapshot")
        return point

    def _drop_points(self, at: AtVcenter) -> None:
        for point in reversed(self._points(at.vm).values()):
            self._require_leave()
            replica_vm.drop(at.session, at.vm, point, self._waiting)

    def _require_leave(self) -> None:
        """Raise once it was told to stop: a machine that was suspended may wake up here without its lease."""
        if self._waiting.cancelled is not None and self._waiting.cancelled.is_set():
            raise CancelledError(self.name, why="it was told to stop")

    def _require_off(self, vm: Vm) -> None:
        if vm.powered_on:
            raise ReplicaPoweredOnError(self.name, why="it is powered on", remedy="Power it off.")

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """A session; what is only in use at the moment is told so to the source, too."""
        try:
            with self.access.sessions(self.home.vcenter).borrow() as session:
                yield session
        except (DiskLockedError, VmBusyError) as error:
            raise ReplicaBusyError(error.what, why=error.why, remedy=error.remedy) from error
