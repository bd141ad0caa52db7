"""The steps of an operation: what a proxy is asked for in each, so that done again it comes to the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.contract.specification import TaskBody
from scheduler.replication import tasks
from scheduler.replication.cancelling import FAILOVERS
from scheduler.replication.places import reached, reached_original
from scheduler.state.models import Replica, ReplicaOperation, ReplicaOperationKind, ReplicaState

Kind = ReplicaOperationKind
Step = Callable[[Replica, ReplicaOperation], TaskBody | None]
"""What is to be done next; None for the run that moves the disks."""


def _to_point(replica: Replica, operation: ReplicaOperation) -> TaskBody:
    return tasks.revert(reached(replica), operation.point or "", ReplicaCondition.FAILED_OVER)


def _to_standby(replica: Replica, operation: ReplicaOperation) -> TaskBody:
    return tasks.revert(reached(replica), operation.point or "", ReplicaCondition.STANDBY)


def _make_permanent(replica: Replica, _: ReplicaOperation) -> TaskBody:
    return tasks.mark(reached(replica), ReplicaCondition.PERMANENT)


def _mark_standby(replica: Replica, _: ReplicaOperation) -> TaskBody:
    return tasks.mark(reached(replica), ReplicaCondition.STANDBY)


def _keep_as_point(replica: Replica, operation: ReplicaOperation) -> TaskBody:
    return tasks.replica_point(replica, operation.point or "", None)


def _original_as_before(replica: Replica, _: ReplicaOperation) -> TaskBody:
    return tasks.revert(reached_original(replica), replica.before or "", ReplicaCondition.STANDBY)


def _in_use_again(replica: Replica, _: ReplicaOperation) -> TaskBody:
    """A commit that failed may have marked it a standby; in a vCenter, it was shut down for the failback."""
    return tasks.mark(reached(replica), ReplicaCondition.FAILED_OVER, replica.point)


def _release_original(replica: Replica, _: ReplicaOperation) -> TaskBody:
    """What it was kept as goes with that."""
    return tasks.mark(reached_original(replica), ReplicaCondition.PERMANENT)


def _start_original(replica: Replica, _: ReplicaOperation) -> TaskBody:
    """As a failover does with a replica in a vCenter."""
    return tasks.mark(reached_original(replica), ReplicaCondition.FAILED_OVER)


_UNDO_BOTH: Final[tuple[Step, ...]] = (_original_as_before, _to_standby, _release_original)
"""Of a failover whose failback failed and could not be taken out of the original then."""
_UNDO_FAILING: Final[tuple[Step, ...]] = (_original_as_before, _release_original)
_UNDO_FAILBACK: Final[tuple[Step, ...]] = (_original_as_before, _in_use_again, _release_original)
_RUN: Final[Step] = lambda _replica, _operation: None  # noqa: E731  one of the steps, like the others
_FAILBACK_IN_VCENTER: Final[tuple[Step, ...]] = (_RUN, _start_original)


def steps_of(replica: Replica, operation: ReplicaOperation) -> tuple[Step, ...]:
    """The steps of an operation; those of an undo depend on what is undone."""
    if operation.undoing:
        return (_to_standby,) if operation.kind in FAILOVERS else _UNDO_FAILING
    if operation.kind is Kind.UNDO and replica.state is ReplicaState.FAILED_BACK:
        return _UNDO_FAILBACK
    if operation.kind is Kind.UNDO and replica.before is not None:
        return _UNDO_BOTH
    if operation.kind is Kind.FAILBACK and replica.original_vcenter is not None:
        return _FAILBACK_IN_VCENTER
    return _STEPS[operation.kind]


_STEPS: Final[Mapping[Kind, tuple[Step, ...]]] = {
    Kind.FAILOVER: (_to_point,),
    Kind.PLANNED_FAILOVER: (_RUN, _to_point),
    Kind.UNDO: (_to_standby,),
    Kind.PERMANENT: (_make_permanent,),
    Kind.FAILBACK: (_RUN,),
    Kind.COMMIT: (_mark_standby, _keep_as_point, _release_original),  # until the last one, `undo` has a way back
}
