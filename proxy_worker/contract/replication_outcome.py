"""How the tasks of a replication end. All sizes are in bytes, times are Unix seconds."""

from __future__ import annotations

from typing import Literal

from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.contract.subjects import Frozen, Name


class DiskReceiveResult(Frozen):
    """A replica's disk is whole, and durable."""

    kind: Literal[TaskKind.DISK_RECEIVE] = TaskKind.DISK_RECEIVE
    session: Name
    root: str
    """A digest over all of the disk, keyed by the target's proxy; the source's task tells the same."""
    written_bytes: int
    compared_bytes: int
    """Read of the replica, since nobody knew what it held."""
    seeded_from: Name | None = None
    """The restore point that it began with."""
    note: str = ""
    """Why the replica was compared, where it could have been known."""


class DiskReplicateResult(Frozen):
    """A replica's disk is equal to its source, and durable."""

    kind: Literal[TaskKind.DISK_REPLICATE] = TaskKind.DISK_REPLICATE
    report: DiskReport
    """`stored_bytes`: what crossed the network, compressed, or was written where nothing crosses any;
    `duplicate_bytes`: read, and equal to what the replica held."""
    root: str


class ReplicaPointSummary(Frozen):
    """A restore point of a replica."""

    run: Name
    created_at: float
    reflinked: bool
    """Whether it shares its blocks with the replica; otherwise it is a copy."""
    size_bytes: int
    """Of its disks."""


class ReplicaOpenResult(Frozen):
    """The replica can be written."""

    kind: Literal[TaskKind.REPLICA_OPEN] = TaskKind.REPLICA_OPEN
    condition: ReplicaCondition
    points: tuple[ReplicaPointSummary, ...]
    """Oldest first."""
    warnings: tuple[str, ...] = ()
    free_bytes: int


class ReplicaPointResult(Frozen):
    """The restore point exists."""

    kind: Literal[TaskKind.REPLICA_POINT] = TaskKind.REPLICA_POINT
    point: ReplicaPointSummary
    warnings: tuple[str, ...] = ()


class ReplicaRemovePointResult(Frozen):
    """There is no such restore point any more."""

    kind: Literal[TaskKind.REPLICA_REMOVE_POINT] = TaskKind.REPLICA_REMOVE_POINT
    found: bool


class ReplicaRevertResult(Frozen):
    """The replica's disks are those of the restore point."""

    kind: Literal[TaskKind.REPLICA_REVERT] = TaskKind.REPLICA_REVERT
    condition: ReplicaCondition


class ReplicaMarkResult(Frozen):
    """The replica's condition is noted."""

    kind: Literal[TaskKind.REPLICA_MARK] = TaskKind.REPLICA_MARK
    before: ReplicaCondition
