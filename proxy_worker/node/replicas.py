"""The tasks on a replica as a whole, wherever it lies: in a folder of a datastore, or in a vCenter."""

from __future__ import annotations

from typing import Protocol

from proxy_worker.contract.replication import (
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
)
from proxy_worker.contract.replication_outcome import (
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Control
from proxy_worker.node.bench import Bench
from proxy_worker.node.folder_replicas import InFolder


class _Where(Protocol):
    """A replica, as the tasks see it."""

    def open(self, body: ReplicaOpen) -> ReplicaOpenResult:
        """Say what there is, once nothing speaks against writing it."""

    def make_point(self, body: ReplicaPoint) -> ReplicaPointResult:
        """Keep it as it is."""

    def remove_point(self, body: ReplicaRemovePoint) -> ReplicaRemovePointResult:
        """Remove a restore point."""

    def revert(self, body: ReplicaRevert) -> ReplicaRevertResult:
        """Go back to a restore point: to run from it, or to be written again."""

    def mark(self, body: ReplicaMark) -> ReplicaMarkResult:
        """Note what it is; one that is a VM of its own from now on has no restore points any more."""


def open_replica(body: ReplicaOpen, bench: Bench, claim: Claim, keeper: Control) -> ReplicaOpenResult:
    """As `_Where.open`."""
    return _reached(body.replica, bench, claim, keeper).open(body)


def make_replica_point(body: ReplicaPoint, bench: Bench, claim: Claim, keeper: Control) -> ReplicaPointResult:
    """As `_Where.make_point`."""
    return _reached(body.replica, bench, claim, keeper).make_point(body)


def remove_replica_point(
    body: ReplicaRemovePoint, bench: Bench, claim: Claim, keeper: Control
) -> ReplicaRemovePointResult:
    """As `_Where.remove_point`."""
    return _reached(body.replica, bench, claim, keeper).remove_point(body)


def revert_replica(body: ReplicaRevert, bench: Bench, claim: Claim, keeper: Control) -> ReplicaRevertResult:
    """As `_Where.revert`."""
    return _reached(body.replica, bench, claim, keeper).revert(body)


def mark_replica(body: ReplicaMark, bench: Bench, claim: Claim, keeper: Control) -> ReplicaMarkResult:
    """As `_Where.mark`."""
    return _reached(body.replica, bench, claim, keeper).mark(body)


def _reached(place: ReplicaPlace, bench: Bench, claim: Claim, keeper: Control) -> _Where:
    if place.vsphere is None:
        return InFolder(place, bench, claim, keeper)
    # pyvmomi is slow to load.
    from proxy_worker.node.vsphere_replicas import InVcenter, OriginalInVcenter  # noqa: PLC0415

    return (OriginalInVcenter if place.vsphere.original else InVcenter)(place, place.vsphere, bench, keeper)
