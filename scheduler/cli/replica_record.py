"""What is known of a replica at one moment, and how people see it."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.program.units import size
from scheduler.cli.live import Live
from scheduler.cli.printing import facts, moment, state, table
from scheduler.replication.asking import points_of
from scheduler.reports.shown import Moment, Shown
from scheduler.state.models import LedgerTask, Replica, ReplicaOperation, WorkState


class ReplicaPointRecord(Shown):
    """A restore point of a replica."""

    point: str
    created: Moment
    reflinked: bool
    """Whether it shares its blocks with the replica, instead of being a copy."""
    size_bytes: int


class OperationRecord(Shown):
    """The last thing that was asked for a replica."""

    operation: str
    kind: str
    state: str
    point: str | None
    run: str | None
    """The run that moves its disks, or moved them."""
    reason: str | None
    created: Moment
    ended: Moment | None
    exit_code: int
    """Of a command that waits for it."""

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.ended is not None


class ReplicaRecord(Shown):
    """A replica; also what `--json` prints."""

    replica: str
    """Its id."""
    name: str
    state: str
    vm: str
    vm_id: str
    job: str
    datastore: str
    folder: str
    in_vcenter: bool
    """Whether it is a VM of a vCenter, and its restore points snapshots, not files of a datastore folder."""
    mapped: bool
    """Whether it was a VM before."""
    runs_from: str | None
    """The restore point that it took its original's place with."""
    since: Moment
    points: tuple[ReplicaPointRecord, ...]
    """Oldest first."""
    operation: OperationRecord | None


def replica_record(session: Session, replica: Replica, live: Live) -> ReplicaRecord:
    """What the database and, where it answers, the ledger say of a replica."""
    last = session.scalars(
        select(ReplicaOperation)
        .where(ReplicaOperation.replica_id == replica.id)
        .order_by(ReplicaOperation.created_at.desc(), ReplicaOperation.id.desc())
        .limit(1)
    ).first()
    return ReplicaRecord(
        replica=replica.id,
        name=replica.name,
        state=replica.state.value,
        vm=replica.vm_name,
        vm_id=replica.vm_id,
        job=replica.job,
        datastore=replica.place.datastore,
        folder=replica.place.folder,
        in_vcenter=replica.machine is not None,
        mapped=replica.mapped,
        runs_from=replica.point,
        since=replica.changed_at,
        points=tuple(
            ReplicaPointRecord(
                point=point.point,
                created=point.created_at,
                reflinked=point.reflinked,
                size_bytes=point.size_bytes,
            )
            for point in points_of(session, replica.id, time.time())
        ),
        operation=_operation(session, last, live) if last is not None else None,
    )


def operation_line(record: ReplicaRecord) -> str:
    """One line that says how far what was asked for is."""
    asked = record.operation
    if asked is None:
        return f"{record.name}: {record.state}"
    what = f"{asked.kind} of {record.name}"
    if asked.state == WorkState.CANCELLED.value:
        return f"{what}: {asked.reason}"
    line = f"{what}: {asked.state}"
    if asked.run is not None and not asked.final:
        line += f", run {asked.run} moves its disks"
    return f"{line}: {asked.reason}" if asked.reason else line


def replica_summary(record: ReplicaRecord) -> RenderableType:
    """A replica, what was done with it last, and its restore points."""
    rows: list[tuple[str, str | Text]] = [
        ("replica", f"{record.name} ({record.replica})"),
        ("state", Text.assemble(state(record.state), f" since {moment(record.since)}")),
        ("VM", f"{record.vm} ({record.vm_id})"),
        ("job", record.job),
        ("lies in", f"{record.folder} of datastore {record.datastore}" + (", mapped" if record.mapped else "")),
    ]
    if record.runs_from is not None:
        rows.append(("runs from", record.runs_from))
    if record.operation is not None:
        rows.append(("last asked for", operation_line(record)))
    points = table("POINT", "MADE", "SIZE", "KEPT AS", right=("SIZE",), keep=("POINT",))
    for point in record.points:
        points.add_row(point.point, moment(point.created), size(point.size_bytes), _kept_as(record, point))
    none = Text("It has no restore point.", style="yellow")
    return Group(facts(rows), "", points if record.points else none)


def _kept_as(record: ReplicaRecord, point: ReplicaPointRecord) -> str:
    if record.in_vcenter:
        return "snapshot"
    return "reflink" if point.reflinked else "copy"


def _operation(session: Session, operation: ReplicaOperation, live: Live) -> OperationRecord:
    failed = operation.state in {WorkState.FAILED, WorkState.CANCELLED}
    reason = _why(operation.failure) if operation.failure is not None else None
    if not operation.state.final and (reason is None or operation.undoing):
        rows = session.scalars(select(LedgerTask).where(LedgerTask.operation_id == operation.id)).all()
        if reason is None:
            reason = live.reason([row.id for row in rows])
        else:
            reason = "; ".join([reason, *(str(row.failure) for row in rows if row.failure is not None)])
    default = ProxyfleetError.exit_code
    return OperationRecord(
        operation=operation.id,
        kind=operation.kind.value,
        state="undoing" if operation.undoing and not failed else operation.state.value,
        point=operation.point,
        run=operation.run_id,
        reason=reason,
        created=operation.created_at,
        ended=operation.ended_at,
        exit_code=0 if not failed else operation.failure.exit_code if operation.failure is not None else default,
    )


def _why(failure: TaskFailure) -> str:
    """What was asked for is named beside it: of what was cancelled, the words that don't."""
    return failure.why if failure.code == CancelledError.code() else str(failure)
