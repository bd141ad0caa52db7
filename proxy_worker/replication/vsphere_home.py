"""A replica in a vCenter: a VM that is off, whose restore points are snapshots.

Runs write the newest file of each disk's chain over the network. A run begins by reverting to the newest restore
point, so that what is noted of that holds, whatever was done to the VM since. What it is stands in the VM itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.replication import ReplicaCondition, ReplicaMachine, ReplicaPlace, VsphereHome
from proxy_worker.contract.replication_outcome import ReplicaPointSummary
from proxy_worker.replication.errors import (
    ReplicaAbsentError,
    ReplicaBusyError,
    ReplicaDiskSizeError,
    ReplicaFolderTakenError,
    ReplicaPointMissingError,
    ReplicaPoweredOnError,
    ReplicaTooLargeError,
    ReplicaUnwritableError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.faults import DiskLockedError, VmBusyError
from proxy_worker.vsphere.hardware import Hardware
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make
from proxy_worker.vsphere.placing import NameTakenError, Wanted, find_spot
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.session import Session, read_password
from proxy_worker.vsphere.tasks import Waiting
from proxy_worker.vsphere.upload import upload

_NVRAM: Final = ".nvram"
_LONGEST_NAME: Final = 80
"""Of a VM, in vSphere."""
_BUSY_S: Final = 60.0
_BUSY_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class AtVcenter:
    """A replica's VM, with a session to its vCenter."""

    session: Session
    vm: Vm


class VsphereReplica:
    """One replica; thread-safe, as it keeps nothing."""

    def __init__(self, place: ReplicaPlace, home: VsphereHome, access: VsphereAccess, waiting: Waiting) -> None:
        self.name = f"replica {place.folder} in datastore {place.datastore} of vCenter {home.vcenter.name}"
        self.home = home
        self.access = access
        self._place = place
        self._waiting = waiting

    def open(self, machine: ReplicaMachine) -> tuple[str, ...]:
        """Make it unless it is there, then have it as its newest restore point left it; answers warnings.

        Raises what `require_standby` does, `ReplicaDiskSizeError`, `ReplicaFolderTakenError`, and the errors of
        `placing` and `new_machine`.
        """
        warnings: tuple[str, ...] = ()
        with self._session() as session:
            vm = self._found(session)
            if vm is None:
                warnings = self._make(session, machine)
        with self.there() as at:
            marker = self._require_standby(at)
            self._require_disks(at.vm, machine)
            points = replica_vm.points_of(at.vm, self.home.mark)
            if points:
                self._require_leave()
                replica_vm.go_back(at.session, at.vm, list(points.values())[-1], self._waiting)
                self._note(at, marker)  # which went back, too
        return warnings

    @contextlib.contextmanager
    def there(self) -> Iterator[AtVcenter]:
        """Its VM as it is now; raises `ReplicaAbsentError`, `ReplicaFolderTakenError`, `ReplicaBusyError`."""
        with self._session() as session:
            vm = self._found(session)
            if vm is None:
                raise ReplicaAbsentError(
                    self.name, why=f"vCenter has no VM of its instance uuid {self.home.uuid}", remedy="Run its job."
                )
            yield AtVcenter(session, vm)

    def marker(self, at: AtVcenter) -> Marker:
        """What is noted of it. Raises `ReplicaUnwritableError`."""
        text = replica_vm.note_of(at.session, at.vm.ref)
        try:
            return msgspec.json.decode(text, type=Marker) if text is not None else Marker()
        except msgspec.MsgspecError as error:
            raise ReplicaUnwritableError(self.name, why=f"what it notes of itself is damaged: {error}") from error

    def require_standby(self) -> Marker:
        """Raise unless runs may write it: errors that say why not."""
        with self.there() as at:
            return self._require_standby(at)

    def note(self, marker: Marker) -> None:
        """Note something else in it."""
        with self.there() as at:
            self._note(at, marker)

    def note_about(self, at: AtVcenter, about: str, text: str) -> None:
        """Note something else about one of its disks; waits where its other disks' notes are in the way.

        Raises `VmBusyError` when that lasts.
        """
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                replica_vm.note(at.session, at.vm.ref, text, self._waiting, about=about)
            except VmBusyError:
                if time.monotonic() > deadline:
                    raise
                self._require_leave()
                time.sleep(_BUSY_PAUSE_S)
            else:
                return

    def keep_file(self, name: str, content: bytes) -> None:
        """Put its original's NVRAM beside it; of the VMX it was made."""
        if not name.lower().endswith(_NVRAM):
            return
        with self.there() as at:
            datastore, path = split_path(at.vm.configuration_path or "")
            center = replica_vm.datacenter_path(at.session, at.vm.ref)
        endpoint = self.access.endpoint(self.home.vcenter)
        upload(
            endpoint,
            read_password(endpoint, self.access.secrets_dir),
            content,
            datacenter=center,
            datastore=datastore,
            path=f"{path.rpartition('/')[0]}/{self._vm_name}{_NVRAM}",
        )

    def require_room(self, what: str, needed_bytes: int) -> None:
        """Raise `ReplicaTooLargeError` unless its datastore has so much left."""
        free = self.free_bytes()
        if needed_bytes > free:
            raise ReplicaTooLargeError(
                f"{what} doesn't fit into datastore {self.home.datastore} of vCenter {self.home.vcenter.name}",
                why=f"it takes {needed_bytes} bytes, and {free} are free",
                remedy="Free some, or replicate to another datastore.",
            )

    def free_bytes(self) -> int:
        """What its datastore has left."""
        with self.there() as at:
            return replica_vm.free_bytes(at.session, at.vm, self.home.datastore)

    def points(self) -> tuple[ReplicaPointSummary, ...]:
        """Its restore points, oldest first."""
        with self.there() as at:
            size = sum(disk.size_bytes for disk in at.vm.disks)
            return tuple(
                ReplicaPointSummary(run=run, created_at=node.created_at, reflinked=True, size_bytes=size)
                for run, node in replica_vm.points_of(at.vm, self.home.mark).items()
            )

    def make_point(self, run: str) -> None:
        """Keep it as it is now; done again, it changes nothing."""
        with self.there() as at:
            self._require_standby(at)
            if run not in replica_vm.points_of(at.vm, self.home.mark):
                self._require_leave()
                replica_vm.keep(at.session, at.vm, run, self.home.mark, self._waiting)

    def remove_point(self, run: str) -> bool:
        """Remove one; returns whether it was there.

        Raises `ReplicaRevertingError` for the one that the replica is half reverted to.
        """
        with self.there() as at:
            marker = self.marker(at)
            if marker.run == run:
                marker.require_whole(self.name)
            point = replica_vm.points_of(at.vm, self.home.mark).get(run)
            if point is not None:
                self._require_leave()
                replica_vm.drop(at.session, at.vm, point, self._waiting)
            return point is not None

    def revert(self, run: str, condition: ReplicaCondition) -> None:
        """Make it what it was at a restore point: on, where it fails over, and off otherwise.

        Done again, it goes on from where it was. Raises `ReplicaPointMissingError`, `ReplicaPoweredOnError`.
        """
        with self.there() as at:
            before = self.marker(at)
            done = Marker(condition, run, original=before.original)
            if before != done:
                point = replica_vm.points_of(at.vm, self.home.mark).get(run)
                if point is None:
                    raise ReplicaPointMissingError(
                        f"restore point {run} of {self.name}", why="it has no such snapshot"
                    )
                if condition is ReplicaCondition.FAILED_OVER:
                    self._require_off(at.vm)
                self._require_own_snapshots(at.vm)
                self._require_leave()
                self._note(at, msgspec.structs.replace(done, reverting=True))
                switch_off(at.session, at.vm.ref, at.vm.name, self._waiting)
                replica_vm.go_back(at.session, at.vm, point, self._waiting)
                self._note(at, done)
            if condition is ReplicaCondition.FAILED_OVER:
                switch_on(at.session, at.vm.ref, at.vm.name, self._waiting)

    def mark(self, condition: ReplicaCondition, run: str | None) -> ReplicaCondition:
        """Note what it is; one that is a VM of its own has no restore points any more. Answers what it was."""
        with self.there() as at:
            before = self.marker(at)
            before.require_whole(self.name)
            self._require_leave()
            self._note(at, msgspec.structs.replace(before, condition=condition, run=run))
            if condition is ReplicaCondition.PERMANENT:
                for point in reversed(replica_vm.points_of(at.vm, self.home.mark).values()):
                    replica_vm.drop(at.session, at.vm, point, self._waiting)
            return before.condition

    @property
    def _vm_name(self) -> str:
        return self._place.folder[:_LONGEST_NAME]

    def _make(self, session: Session, machine: ReplicaMachine) -> tuple[str, ...]:
        hardware = msgspec.json.decode(machine.hardware, type=Hardware)
        connected = {card.network for card in hardware.cards}
        wanted = Wanted(self._vm_name, datastore=self.home.datastore)
        try:
            spot = find_spot(read_inventory(session), wanted, Wanted(self._vm_name))
        except NameTakenError as error:
            raise ReplicaFolderTakenError(self.name, why=error.why, remedy="Choose another suffix.") from error
        made = make(
            session,
            NewMachine(
                name=self._vm_name,
                hardware=hardware,
                disks=[NewDisk(disk.key, disk.size_bytes or 0, spot.datastore) for disk in machine.disks],
                instance_uuid=self.home.uuid,
                mark=self.home.mark,
                same_machine=False,
                folder=spot.folder,
                pool=spot.pool,
                host=spot.host,
                datastore=spot.datastore,
                disk_format=DiskFormat.THIN,
                networks={old: new for old, new in machine.networks.items() if old in connected},
            ),
            self._waiting,
        )
        return made.warnings

    def _require_standby(self, at: AtVcenter) -> Marker:
        marker = self.marker(at)
        marker.require_whole(self.name)
        marker.require_standby(
            self.name,
            ways_out="Undo the failover, or make it permanent.",
            elsewhere="Replicate under another suffix.",
        )
        self._require_off(at.vm)
        self._require_own_snapshots(at.vm)
        return marker

    def _require_leave(self) -> None:
        """Raise once it was told to stop: a machine that was suspended may wake up here without its lease."""
        if self._waiting.cancelled is not None and self._waiting.cancelled.is_set():
            raise CancelledError(self.name, why="it was told to stop")

    def _require_disks(self, vm: Vm, machine: ReplicaMachine) -> None:
        has = {disk.place: disk.size_bytes for disk in vm.disks}
        wanted = {disk.key: disk.size_bytes for disk in machine.disks}
        if has == wanted:
            return
        raise ReplicaDiskSizeError(
            self.name,
            why=f"its disks are {_shown(has)}, its original's {_shown(wanted)}, and it keeps what it was made with",
            remedy="Delete the replica in vCenter: the next run makes it anew.",
        )

    def _require_off(self, vm: Vm) -> None:
        if vm.powered_on:
            raise ReplicaPoweredOnError(self.name, why="it is powered on", remedy="Power it off.")

    def _require_own_snapshots(self, vm: Vm) -> None:
        foreign = replica_vm.foreign_snapshot(vm, self.home.mark)
        if foreign is not None:
            raise ReplicaBusyError(
                self.name,
                why=f"it has the snapshot {foreign.name!r}, which is no restore point of it",
                remedy="Remove that snapshot, or wait for the backup that made it.",
            )

    def _note(self, at: AtVcenter, marker: Marker) -> None:
        replica_vm.note(at.session, at.vm.ref, msgspec.json.encode(marker).decode(), self._waiting)

    def _found(self, session: Session) -> Vm | None:
        try:
            return replica_vm.find_replica(session, self.home.uuid, self.home.mark)
        except replica_vm.ForeignReplicaError as error:
            raise ReplicaFolderTakenError(error.what, why=error.why, remedy=error.remedy) from error

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """A session; what is only in use at the moment is told so to the source, too."""
        try:
            with self.access.sessions(self.home.vcenter).borrow() as session:
                yield session
        except (DiskLockedError, VmBusyError) as error:
            raise ReplicaBusyError(error.what, why=error.why, remedy=error.remedy) from error


def _shown(disks: dict[str, int] | dict[str, int | None]) -> str:
    return ", ".join(f"{key} of {size} bytes" for key, size in sorted(disks.items())) or "none"
