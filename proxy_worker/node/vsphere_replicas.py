"""The tasks on a replica in a vCenter, as `proxy_worker.node.replicas` has them for one in a folder.

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
from proxy_worker.vsphere.tasks import Waiting


class NoMachineError(TargetError):
    """It isn't known what a replica in a vCenter is to be made of."""


def replica_in(place: ReplicaPlace, home: VsphereHome, bench: Bench, keeper: Control) -> VsphereReplica:
    """A replica in a vCenter, as this proxy gets at it."""
    return VsphereReplica(place, home, bench.vsphere, Waiting(cancelled=ToldToStop(keeper)))


def open_replica(body: ReplicaOpen, home: VsphereHome, bench: Bench, keeper: Control) -> ReplicaOpenResult:
    """Make it unless it is there, and say what there is, once nothing speaks against writing it."""
    replica = replica_in(body.replica, home, bench, keeper)
    if body.machine is None:
        raise NoMachineError(replica.name, why="its original's hardware isn't known", remedy="Run its job anew.")
    warnings = replica.open(body.machine)
    return ReplicaOpenResult(
        condition=ReplicaCondition.STANDBY,
        points=replica.points(),
        free_bytes=replica.free_bytes(),
        warnings=warnings,
    )


def make_replica_point(body: ReplicaPoint, home: VsphereHome, bench: Bench, keeper: Control) -> ReplicaPointResult:
    """Keep it as it is, by a snapshot."""
    replica = replica_in(body.replica, home, bench, keeper)
    replica.make_point(body.run)
    return ReplicaPointResult(point=next(point for point in replica.points() if point.run == body.run))


def remove_replica_point(
    body: ReplicaRemovePoint, home: VsphereHome, bench: Bench, keeper: Control
) -> ReplicaRemovePointResult:
    """Remove one."""
    return ReplicaRemovePointResult(found=replica_in(body.replica, home, bench, keeper).remove_point(body.run))


def revert_replica(body: ReplicaRevert, home: VsphereHome, bench: Bench, keeper: Control) -> ReplicaRevertResult:
    """Go back to a restore point: to run from it, or to be written again."""
    replica_in(body.replica, home, bench, keeper).revert(body.run, body.condition)
    return ReplicaRevertResult(condition=body.condition)


def mark_replica(body: ReplicaMark, home: VsphereHome, bench: Bench, keeper: Control) -> ReplicaMarkResult:
    """Note what it is."""
    before = replica_in(body.replica, home, bench, keeper).mark(body.condition, body.run)
    if body.condition is ReplicaCondition.PERMANENT:
        TableFolder(bench.configuration.state_dir).forget(body.replica.datastore, body.replica.folder)
    return ReplicaMarkResult(before=before)
