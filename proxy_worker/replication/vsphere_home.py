"""A replica in a vCenter: a VM that is off, whose restore points are snapshots.

A run begins by reverting to the newest restore point, so that what is noted of that holds, whatever was done to the
VM since. What it is stands in the VM itself.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from proxy_worker.contract.names import DiskFormat
from proxy_worker.contract.replication import ReplicaCondition, ReplicaMachine, ReplicaPlace, VsphereHome
from proxy_worker.replication.errors import (
    ReplicaAbsentError,
    ReplicaBusyError,
    ReplicaDiskSizeError,
    ReplicaFolderTakenError,
    ReplicaUnwritableError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.replication.vsphere_machine import AtVcenter, VsphereMachine
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.faults import VmBusyError
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


class VsphereReplica(VsphereMachine):
    """One replica."""

    def __init__(self, place: ReplicaPlace, home: VsphereHome, access: VsphereAccess, waiting: Waiting) -> None:
        name = f"replica {place.folder} in datastore {place.datastore} of vCenter {home.vcenter.name}"
        super().__init__(name, place, home, access, waiting)

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
            points = self._points(at.vm)
            if points:
                self._require_leave()
                replica_vm.go_back(at.session, at.vm, list(points.values())[-1], self._waiting)
                self._note(at, marker)  # which went back, too
        return warnings

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

    def require_sendable(self) -> None:
        """Raise unless its disks may be sent to its original as they are: it is off, and not half reverted."""
        with self.there() as at:
            self.marker(at).require_whole(self.name)
            self._require_off(at.vm)

    def session_noted(self, at: AtVcenter, disk_key: str) -> str | None:
        """The session that wrote one of its disks last."""
        return replica_vm.note_of(at.session, at.vm.ref, f"session.{disk_key}")

    def note_session(self, at: AtVcenter, disk_key: str, session: str) -> None:
        """Note which session writes one of its disks from now on; waits for notes about its other disks.

        Raises `VmBusyError` when that lasts.
        """
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                replica_vm.note(at.session, at.vm.ref, session, self._waiting, about=f"session.{disk_key}")
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

    def make_point(self, run: str) -> None:
        """Keep it as it is now; done again, it changes nothing."""
        with self.there() as at:
            self._require_standby(at)
            if run not in self._points(at.vm):
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
            point = self._points(at.vm).get(run)
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
                point = self._point(at.vm, run)
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
        """Note what it is; answers what it was.

        One that is in use again is powered on, and one that is a VM of its own has no restore points any more.
        Raises `ReplicaPoweredOnError` where one that runs is to stand by.
        """
        with self.there() as at:
            before = self.marker(at)
            before.require_whole(self.name)
            if condition is ReplicaCondition.STANDBY:
                self._require_off(at.vm)
            self._require_leave()
            self._note(at, msgspec.structs.replace(before, condition=condition, run=run))
            if condition is ReplicaCondition.FAILED_OVER:
                switch_on(at.session, at.vm.ref, at.vm.name, self._waiting)
            if condition is ReplicaCondition.PERMANENT:
                self._drop_points(at)
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
            ways_out="Undo the failover, fail back, or make it permanent.",
            elsewhere="Replicate under another suffix.",
        )
        self._require_off(at.vm)
        self._require_own_snapshots(at.vm)
        return marker

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

    def _require_found(self, vm: Vm | None) -> Vm:
        if vm is None:
            raise ReplicaAbsentError(
                self.name, why=f"vCenter has no VM of its instance uuid {self.home.uuid}", remedy="Run its job."
            )
        return vm


def _shown(disks: dict[str, int] | dict[str, int | None]) -> str:
    return ", ".join(f"{key} of {size} bytes" for key, size in sorted(disks.items())) or "none"
