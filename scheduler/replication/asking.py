"""How a command leaves what is to be done with a replica for `scheduler serve`: it writes what it wants.

What can be checked at once is checked here, so that a wrong name is an error of the command. Times are Unix
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from scheduler.planning.retention import is_ahead
from scheduler.replication.operating import active_operation
from scheduler.state.asking import new_id
from scheduler.state.errors import (
    AmbiguousReplicaError,
    NoSuchReplicaError,
    NoSuchReplicaPointError,
    ReplicaBusyError,
    ReplicaStateError,
)
from scheduler.state.models import (
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaPoint,
    ReplicaState,
    Run,
    RunState,
    Vcenter,
    VmRun,
)

Kind = ReplicaOperationKind
_FROM: Final[Mapping[Kind, tuple[ReplicaState, ...]]] = {
    Kind.FAILOVER: (ReplicaState.STANDBY,),
    Kind.PLANNED_FAILOVER: (ReplicaState.STANDBY,),
    Kind.UNDO: (ReplicaState.FAILED_OVER, ReplicaState.FAILED_BACK),
    Kind.PERMANENT: (ReplicaState.FAILED_OVER,),
    Kind.FAILBACK: (ReplicaState.FAILED_OVER,),
    Kind.COMMIT: (ReplicaState.FAILED_BACK,),
}
_INSTEAD: Final[Mapping[ReplicaState, str]] = {
    ReplicaState.NEW: "A run of its job that succeeds makes its first restore point.",
    ReplicaState.STANDBY: "`failover` and `planned-failover` can be asked for.",
    ReplicaState.FAILED_OVER: "`undo`, `failback` and `permanent` can be asked for.",
    ReplicaState.FAILED_BACK: "`commit` and `undo` can be asked for.",
    ReplicaState.PERMANENT: "It is a VM like any other; its job doesn't touch it any more.",
}


def find_replica(session: Session, name: str) -> Replica:
    """The replica of that id or name, or that of the VM of that name; raises `NoSuchReplicaError` or
    `AmbiguousReplicaError`."""
    called = or_(Replica.id == name, Replica.name == name, Replica.vm_name == name, Replica.vm_id == name)
    found = session.scalars(select(Replica).where(called).order_by(Replica.created_at)).all()
    exact = [replica for replica in found if name in {replica.id, replica.name}] or found
    if not exact:
        raise NoSuchReplicaError(
            f"replica {name!r}",
            why="no replica and no VM with a replica has that name",
            remedy="`scheduler replica list` shows them.",
        )
    if len(exact) > 1:
        ids = ", ".join(f"{replica.id} of job {replica.job}" for replica in exact)
        raise AmbiguousReplicaError(f"replica {name!r}", why=f"there are several: {ids}", remedy="Give its id.")
    return exact[0]


def points_of(session: Session, replica_id: str, now: float) -> list[ReplicaPoint]:
    """A replica's restore points, oldest first; before them those of a clock that was ahead."""
    points = session.scalars(select(ReplicaPoint).where(ReplicaPoint.replica_id == replica_id))
    return sorted(points, key=lambda one: (not is_ahead(one.created_at, now), one.created_at, one.point))


def ask_for(session: Session, kind: Kind, name: str, *, now: float, point: str | None = None) -> ReplicaOperation:
    """Ask for something to be done with a replica.

    Raises what `find_replica` does, `NoSuchReplicaPointError`, `ReplicaStateError`, or `ReplicaBusyError`.
    """
    replica = find_replica(session, name)
    require_idle(session, replica, f"{kind.value} of replica {replica.name}", planned=kind is Kind.PLANNED_FAILOVER)
    if replica.state not in _FROM[kind]:
        raise ReplicaStateError(
            f"{kind.value} of replica {replica.name}",
            why=f"it is {replica.state.value}" + (", and has no restore point yet" if _is_new(replica) else ""),
            remedy=_instead(replica),
        )
    vcenter = replica.original_vcenter
    half_written = kind is Kind.UNDO and replica.before is not None
    reaches_original = kind is Kind.FAILBACK or replica.state is ReplicaState.FAILED_BACK or half_written
    if reaches_original and vcenter is not None and session.get(Vcenter, vcenter) is None:
        raise ReplicaStateError(
            f"{kind.value} of replica {replica.name}",
            why=f"its original {replica.vm_name} is in vCenter {vcenter}, which isn't declared any more",
            remedy=f"Declare it again: `scheduler vcenter add {vcenter}`.",
        )
    if kind is Kind.FAILBACK and not replica.can_fail_back:
        raise ReplicaStateError(
            f"failback of replica {replica.name}",
            why=f"not all disks of {replica.vm_name} lie in one datastore with its VMX",
            remedy="Make the replica permanent, and replicate it to where the original is to be.",
        )
    operation = ReplicaOperation(
        id=new_id(now),
        replica_id=replica.id,
        kind=kind,
        point=_point(session, replica, kind, point, now),
        created_at=now,
    )
    session.add(operation)
    return operation


def _instead(replica: Replica) -> str:
    """What can be asked for it as it is."""
    if replica.state is ReplicaState.FAILED_OVER and not replica.can_fail_back:
        return "`undo` and `permanent` can be asked for."
    return _INSTEAD[replica.state]


def _is_new(replica: Replica) -> bool:
    return replica.state is ReplicaState.NEW


def _point(session: Session, replica: Replica, kind: Kind, wanted: str | None, now: float) -> str | None:
    """What a failover starts from, an undo goes back to, or a commit makes."""
    if kind is Kind.COMMIT:
        return new_id(now)
    going_back = kind is Kind.UNDO and replica.state is ReplicaState.FAILED_OVER
    if kind is not Kind.FAILOVER and not going_back:
        return None
    points = [point.point for point in points_of(session, replica.id, now)]
    if wanted is not None and wanted not in points:
        raise NoSuchReplicaPointError(
            f"restore point {wanted!r} of replica {replica.name}",
            why="it has none of that name",
            remedy=f"`scheduler replica show {replica.name}` shows those that it has.",
        )
    if not points:
        raise NoSuchReplicaPointError(f"replica {replica.name}", why="it has no restore point")
    return wanted or points[-1]


def require_idle(session: Session, replica: Replica, what: str, *, planned: bool = False) -> None:
    """Raise `ReplicaBusyError` while anything is under way with a replica, or `planned`, with any of its job's."""
    operation = active_operation(session, replica.id)
    if operation is not None:
        raise ReplicaBusyError(
            what,
            why=f"its {operation.kind.value} is under way",
            remedy=f"`scheduler replica show {replica.name}` says how far it is.",
        )
    active = [state for state in RunState if not state.final]
    writing = (
        select(VmRun.run_id)
        .join(Run, Run.id == VmRun.run_id)
        .where(VmRun.replica_id == replica.id, Run.state.in_(active))
    )
    run = next((run for (run,) in session.execute(writing)), None)
    if planned and run is None:
        of_job = select(Run.id).where(Run.job == replica.job, Run.state.in_(active))
        run = session.scalars(of_job).first()
    if run is not None:
        raise ReplicaBusyError(
            what,
            why=f"run {run} of job {replica.job} is under way",
            remedy=f"Wait for it, or `scheduler run cancel {run}`.",
        )
