"""The original of a replica, a VM of a vCenter, while a failback changes it and until that is committed or undone.

It is kept as it was by a snapshot with our mark, and that is all that there is of us in it: nothing is noted, so
that whatever it holds is compared.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy_worker.contract.replication import ReplicaCondition, ReplicaPlace, VsphereHome
from proxy_worker.contract.subjects import DiskIdentity
from proxy_worker.replication.errors import OriginalChangedError, ReplicaBusyError
from proxy_worker.replication.home import Marker
from proxy_worker.replication.vsphere_machine import AtVcenter, VsphereMachine
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.restored import find
from proxy_worker.vsphere.rewriting import stop_tracking
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark
from proxy_worker.vsphere.tasks import Waiting


class VsphereOriginal(VsphereMachine):
    """One original."""

    def __init__(self, place: ReplicaPlace, home: VsphereHome, access: VsphereAccess, waiting: Waiting) -> None:
        name = f"the original, VM {home.uuid} of vCenter {home.vcenter.name}"
        super().__init__(name, place, home, access, waiting)

    def open(self, disks: Iterable[DiskIdentity]) -> None:
        """Raise unless it may be written, and has just these disks: `OriginalChangedError` and others."""
        with self.there() as at:
            self._require_writable(at.vm)
            for disk in disks:
                self._require_disk(at.vm, disk)

    def require_standby(self) -> Marker:
        """Raise unless it may be written, and is kept as it was."""
        with self.there() as at:
            self._require_writable(at.vm)
            if not self._points(at.vm):
                raise OriginalChangedError(
                    self.name, why="the snapshot that keeps it as it was is gone", remedy="Fail back anew."
                )
        return Marker()

    def make_point(self, run: str) -> None:
        """Keep it as it is; done again, it changes nothing.

        What is written goes beneath change tracking, which counts anew from when a backup switches it on again.
        """
        with self.there() as at:
            self._require_writable(at.vm)
            if run not in self._points(at.vm):
                self._require_leave()
                stop_tracking(at.session, at.vm, self._waiting)
                self._require_leave()
                replica_vm.keep(at.session, at.vm, run, self.home.mark, self._waiting)

    def remove_point(self, run: str) -> bool:
        """Remove what keeps it as it was; returns whether that was there."""
        with self.there() as at:
            point = self._points(at.vm).get(run)
            if point is not None:
                self._require_leave()
                replica_vm.drop(at.session, at.vm, point, self._waiting)
            return point is not None

    def revert(self, run: str) -> None:
        """Make it what it was, and off; may be done again. Raises `ReplicaPointMissingError`."""
        with self._session() as session:
            vm = self._found(session)
            if vm is None:  # deleted: nothing is left to be put back, and its replica goes on
                return
            point = self._point(vm, run)
            self._require_own_snapshots(vm)
            self._require_leave()
            switch_off(session, vm.ref, vm.name, self._waiting)
            self._require_leave()
            replica_vm.go_back(session, vm, point, self._waiting)

    def mark(self, condition: ReplicaCondition) -> None:
        """In use again, it is powered on; a VM like any other, it has no snapshot of ours any more."""
        with self._session() as session:
            vm = self._found(session)
            if condition is ReplicaCondition.FAILED_OVER:
                at = AtVcenter(session, self._require_found(vm))
                self._require_leave()
                switch_on(session, at.vm.ref, at.vm.name, self._waiting)
            elif vm is not None:  # of one that was deleted, nothing is left either
                self._drop_points(AtVcenter(session, vm))

    def note(self, marker: Marker) -> None:
        """Nothing is noted in it."""

    def keep_file(self, name: str, content: bytes) -> None:
        """It keeps its own configuration."""

    def session_noted(self, at: AtVcenter, disk_key: str) -> str | None:
        """Nobody knows."""

    def note_session(self, at: AtVcenter, disk_key: str, session: str) -> None:
        """Nothing is noted in it."""

    def _require_writable(self, vm: Vm) -> None:
        if vm.template:
            raise self._changed("it is a template by now", "Make it a VM again.")
        self._require_off(vm)
        self._require_own_snapshots(vm)

    def _require_own_snapshots(self, vm: Vm) -> None:
        foreign = replica_vm.foreign_snapshot(vm, self.home.mark)
        if foreign is None:
            return
        why = f"it has the snapshot {foreign.name!r}"
        if Mark.of(foreign) is not None:
            raise ReplicaBusyError(self.name, why=why, remedy="Wait for the backup that made it.")
        raise self._changed(f"{why}, and what lies beneath a snapshot must not change", "Remove that snapshot.")

    def _require_disk(self, vm: Vm, wanted: DiskIdentity) -> None:
        vsphere = wanted.address.vsphere
        uuid = vsphere.uuid if vsphere is not None else None
        disk = next((disk for disk in vm.disks if disk.place == wanted.key), None)
        if disk is None:
            why = "it isn't there any more"
        elif disk.size_bytes != wanted.size_bytes:
            why = f"it has {disk.size_bytes} bytes, and one of {wanted.size_bytes} was replicated"
        elif None not in {uuid, disk.uuid} and disk.uuid != uuid:
            why = f"it is another disk by now: {disk.uuid}, and {uuid} was replicated"
        elif disk.obstacle is not None:
            why = f"no snapshot keeps it as it is: {disk.obstacle}"
        else:
            return
        raise OriginalChangedError(
            f"disk {wanted.key} of {self.name}", why=why, remedy="Put back the disks as they were."
        )

    def _changed(self, why: str, remedy: str) -> OriginalChangedError:
        return OriginalChangedError(self.name, why=why, remedy=remedy)

    def _found(self, session: Session) -> Vm | None:
        ref = find(session, self.home.uuid)
        return read_vm(session, ref) if ref is not None else None

    def _require_found(self, vm: Vm | None) -> Vm:
        if vm is None:
            raise self._changed(
                "vCenter has no VM of that instance uuid any more",
                "Make the replica permanent, or undo the failover.",
            )
        return vm
