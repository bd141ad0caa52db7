"""The tasks on a replica in a vCenter, as `proxy_worker.node.folder_replicas` has them for one in a folder.

pyvmomi takes half a second to load, and few tasks need it: this module is imported where one does.
"""

from __future__ import annotations

from proxy_worker.contract.errors import TargetError
from proxy_worker.contract.replication import (
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    VsphereHome,
)
from proxy_worker.contract.replication_outcome import (
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.mover.control import Control
from proxy_worker.node.bench import Bench
from proxy_worker.node.vm_creation import ToldToStop
from proxy_worker.replication.table import TableFolder
from proxy_worker.replication.vsphere_home import VsphereReplica
from proxy_worker.replication.vsphere_machine import VsphereMachine
from proxy_worker.replication.vsphere_original import VsphereOriginal
from proxy_worker.vsphere.tasks import Waiting


class NoMachineError(TargetError):
    """It isn't known what a replica in a vCenter is to be made of."""


def replica_in(place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> VsphereReplica:
    """A replica in a vCenter, as this proxy gets at it."""
    return VsphereReplica(place, home, bench.vsphere, Waiting(cancelled=ToldToStop(keeper)))


def original_in(place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> VsphereOriginal:
    """The original of a replica, a VM of a vCenter, as this proxy gets at it."""
    return VsphereOriginal(place, home, bench.vsphere, Waiting(cancelled=ToldToStop(keeper)))


def written_in(place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> VsphereMachine:
    """What is written in a vCenter: a replica, or an original."""
    return (original_in if home.original else replica_in)(place, home, bench, keeper)


class InVcenter:
    """A replica in a vCenter, as one task gets at it."""

    def __init__(self, place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> None:
        self._replica = replica_in(place, home, bench, keeper)
        self._tables = TableFolder(bench.configuration.state_dir)

    def open(self, body: ReplicaOpen) -> ReplicaOpenResult:
        """Make it unless it is there, and say what there is, once nothing speaks against writing it."""
        replica = self._replica
        if body.machine is None:
            raise NoMachineError(
                replica.name, why="its original's hardware isn't known", remedy="Run its job anew."
            )
        warnings = replica.open(body.machine)
        return ReplicaOpenResult(
            condition=ReplicaCondition.STANDBY,
            points=replica.points(),
            free_bytes=replica.free_bytes(),
            warnings=warnings,
        )

    def make_point(self, body: ReplicaPoint) -> ReplicaPointResult:
        """Keep it as it is, by a snapshot."""
        self._replica.make_point(body.run)
        return ReplicaPointResult(point=next(point for point in self._replica.points() if point.run == body.run))

    def remove_point(self, body: ReplicaRemovePoint) -> ReplicaRemovePointResult:
        """Remove a restore point."""
        return ReplicaRemovePointResult(found=self._replica.remove_point(body.run))

    def revert(self, body: ReplicaRevert) -> ReplicaRevertResult:
        """Go back to a restore point: to run from it, or to be written again."""
        self._replica.revert(body.run, body.condition)
        return ReplicaRevertResult(condition=body.condition)

    def mark(self, body: ReplicaMark) -> ReplicaMarkResult:
        """Note what it is; one that is a VM of its own from now on has no restore points any more."""
        before = self._replica.mark(body.condition, body.run)
        if body.condition is ReplicaCondition.PERMANENT:
            self._tables.forget(body.replica.datastore, body.replica.folder)
        return ReplicaMarkResult(before=before)


class OriginalInVcenter:
    """The original of a replica, a VM of a vCenter, as one task of a failback gets at it."""

    def __init__(self, place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> None:
        self._original = original_in(place, home, bench, keeper)
        self._tables = TableFolder(bench.configuration.state_dir)

    def open(self, body: ReplicaOpen) -> ReplicaOpenResult:
        """Say what it is kept as, once nothing speaks against writing it."""
        self._original.open(body.disks)
        return ReplicaOpenResult(
            condition=ReplicaCondition.STANDBY,
            points=self._original.points(),
            free_bytes=self._original.free_bytes(),
        )

    def make_point(self, body: ReplicaPoint) -> ReplicaPointResult:
        """Keep it as it is, by a snapshot."""
        self._original.make_point(body.run)
        return ReplicaPointResult(point=next(point for point in self._original.points() if point.run == body.run))

    def remove_point(self, body: ReplicaRemovePoint) -> ReplicaRemovePointResult:
        """Keep it no more."""
        return ReplicaRemovePointResult(found=self._original.remove_point(body.run))

    def revert(self, body: ReplicaRevert) -> ReplicaRevertResult:
        """Go back to what it was before."""
        self._original.revert(body.run)
        return ReplicaRevertResult(condition=body.condition)

    def mark(self, body: ReplicaMark) -> ReplicaMarkResult:
        """Power it on, in use again; or let go of it."""
        self._original.mark(body.condition)
        if body.condition is ReplicaCondition.PERMANENT:
            self._tables.forget(body.replica.datastore, body.replica.folder)
        return ReplicaMarkResult(before=ReplicaCondition.STANDBY)
