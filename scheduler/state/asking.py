"""How a command leaves work for `scheduler serve`: it writes what it wants, and the service finds it.

Every function checks what can be checked at once, so that a wrong name is an error of the command and not of
something that happens later. Times are Unix seconds.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from proxy_worker.contract.using import BootWishes
from scheduler.planning.retention import CLOCK_DIFFERENCE_S
from scheduler.state.errors import (
    AmbiguousPointError,
    AmbiguousVmError,
    NoSuchDiskError,
    NoSuchJobError,
    NoSuchPointError,
    NoSuchRepositoryError,
    NoSuchRunError,
    NoSuchVcenterError,
    NoSuchVmError,
    PointInUseError,
    PointLeavingError,
    PointPinnedError,
    RunActiveError,
    RunEndedError,
)
from scheduler.state.models import (
    Job,
    JobKind,
    Point,
    Repository,
    Request,
    RequestKind,
    Restore,
    Run,
    RunState,
    RunTrigger,
    Vcenter,
    VcenterScan,
    VmRestore,
    VmRestoreState,
    VmRun,
    VmRunState,
    WorkState,
)


def new_id(now: float) -> str:
    """A unique id that sorts by time: `20261122T190102Z-1a2b3c4d`."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def ask_for_run(session: Session, job_name: str, *, now: float, trigger: RunTrigger = RunTrigger.MANUAL) -> Run:
    """Ask for a run of a job; raises `NoSuchJobError`, or `RunActiveError` while one runs."""
    job = session.get(Job, job_name)
    if job is None:
        raise NoSuchJobError(
            f"job {job_name!r}", why="no job has that name", remedy="`scheduler job list` shows them."
        )
    active = active_run(session, job_name)
    if active is not None:
        raise RunActiveError(
            f"job {job_name!r}",
            why=f"its run {active.id} is still {active.state.value}",
            remedy=f"Wait for it, or `scheduler run cancel {active.id}`.",
        )
    run = Run(
        id=new_id(now),
        job=job.name,
        trigger=trigger,
        state=RunState.REQUESTED,
        created_at=now,
        repository=job.repository or "",
        replica=job.replica,
        level=job.level,
        transport_mode=job.transport_mode,
        failover_to_network=job.failover_to_network,
        priority=job.priority,
        retry_count=job.retry_count,
        retry_wait_seconds=job.retry_wait_seconds,
        vms=job.vms,
        copy_from=job.copy_from,
        criteria=job.criteria,
        quiesce=job.quiesce,
    )
    session.add(run)
    return run


def active_run(session: Session, job_name: str) -> Run | None:
    """The run of a job that hasn't ended, if any."""
    active = [state for state in RunState if not state.final]
    return session.scalars(select(Run).where(Run.job == job_name, Run.state.in_(active))).first()


def find_run(session: Session, run_id: str) -> Run:
    """The run of that id, or the only one whose id starts so; raises `NoSuchRunError`."""
    found = session.scalars(select(Run).where(Run.id.startswith(run_id, autoescape=True)).limit(2)).all()
    exact = [run for run in found if run.id == run_id] or list(found)
    if len(exact) != 1 or not run_id:
        why = "several runs start so" if exact else "no run has that id"
        raise NoSuchRunError(f"run {run_id!r}", why=why, remedy="`scheduler run list` shows them.")
    return exact[0]


def ask_to_cancel(session: Session, run_id: str) -> Run:
    """Ask for the end of a run; raises `NoSuchRunError`, or `RunEndedError` when it has ended."""
    run = find_run(session, run_id)
    if run.state.final:
        raise RunEndedError(f"run {run.id}", why=f"it has ended already: {run.state.value}")
    run.cancel_requested = True
    return run


def ask_to_retry(session: Session, run_id: str) -> Run:
    """Ask for the failed and cancelled VMs of a run that has ended to be tried again, now.

    Raises `NoSuchRunError`, `RunActiveError` while any run of the job goes on, or `RunEndedError` when nothing
    of it failed, or its job's replicas have been told otherwise since.
    """
    run = find_run(session, run_id)
    if run.failback_of is not None:
        raise RunEndedError(
            f"run {run.id}",
            why="it is part of a failback, which has ended with it",
            remedy="Ask for the failback again: `scheduler replica failback`.",
        )
    job = session.get(Job, run.job)
    if run.replica is not None and job is not None and job.replica != run.replica:
        raise RunEndedError(
            f"run {run.id}",
            why=f"job {job.name} says other things of its replicas by now, which may lie elsewhere",
            remedy=f"`scheduler job start {job.name}` replicates as it says now.",
        )
    active = active_run(session, run.job)
    if active is not None:
        raise RunActiveError(f"job {run.job!r}", why=f"its run {active.id} is still {active.state.value}")
    again = [VmRunState.FAILED, VmRunState.CANCELLED]
    failed = session.scalars(select(VmRun.id).where(VmRun.run_id == run.id, VmRun.state.in_(again))).first()
    if failed is None and run.state is RunState.SUCCEEDED:
        raise RunEndedError(f"run {run.id}", why="all of it succeeded, there is nothing to retry")
    run.state = RunState.REQUESTED
    run.cancel_requested = False
    run.retention_applied = False
    run.notified = False
    run.reason = None
    run.ended_at = None
    return run


def find_point(session: Session, vm: str, point: str | None = None, *, repository: str | None = None) -> Point:
    """A VM's restore point, the newest unless told; `vm` is a name or an id. Originals go before their copies, and
    points whose time is yet to come, as of a wrong clock, after all others.

    Raises `NoSuchVmError`, `NoSuchPointError`, or `AmbiguousVmError` when it would have to choose between VMs.
    """
    points = points_of(session, vm, repository=repository)
    copied = Point.job.in_(select(Job.name).where(Job.kind == JobKind.COPY))
    ahead = Point.created_at > time.time() + CLOCK_DIFFERENCE_S
    of_vm = points.order_by(ahead, Point.created_at.desc(), Point.point.desc(), copied, Point.repository)
    if point is None:
        newest = session.scalars(of_vm.limit(1)).one()
        _require_one_vm(session, vm, repository)
        return newest
    found = session.scalars(of_vm.where(Point.point == point)).first()
    if found is None:
        raise NoSuchPointError(
            f"restore point {point!r} of VM {vm!r}",
            why="it is not known",
            remedy=f"`scheduler point list --vm {vm}` shows those that are.",
        )
    return found


def find_only_point(session: Session, vm: str, point: str, *, repository: str | None = None) -> Point:
    """The same; raises `AmbiguousPointError` if several repositories have it."""
    found = find_point(session, vm, point, repository=repository)
    if repository is None and (others := copies_of(session, found)):
        raise AmbiguousPointError(
            f"restore point {point!r} of VM {vm!r}",
            why=f"it is in repositories {', '.join(sorted([found.repository, *others]))}",
            remedy="Say which is meant with --repository.",
        )
    return found


def copies_of(session: Session, point: Point) -> list[str]:
    """The other repositories that have a restore point, in order."""
    others = select(Point.repository).where(
        Point.vm_id == point.vm_id, Point.point == point.point, Point.repository != point.repository
    )
    return list(session.scalars(others.order_by(Point.repository)))


def points_of(session: Session, vm: str, *, repository: str | None = None) -> Select[Point]:
    """What selects the points of all VMs of that name or id. Raises `NoSuchVmError` when there are none."""
    of_vm = select(Point).where((Point.vm_name == vm) | (Point.vm_id == vm))
    if repository is not None:
        of_vm = of_vm.where(Point.repository == repository)
    if session.scalars(of_vm.limit(1)).first() is None:
        raise NoSuchVmError(
            f"VM {vm!r}",
            why="no restore point of it is known",
            remedy="`scheduler point list` shows those that are; `scheduler repository rescan` looks for others.",
        )
    return of_vm


def _require_one_vm(session: Session, vm: str, repository: str | None) -> None:
    """Refuse a name that clones share: the newest point of them all may be another machine's."""
    found = session.scalars(points_of(session, vm, repository=repository)).all()
    newest: dict[str, str] = {}
    for point in found:
        newest[point.vm_id] = max(point.point, newest.get(point.vm_id, ""))
    if len(newest) > 1:
        which = ", ".join(f"{vm_id} (newest point {point})" for vm_id, point in sorted(newest.items()))
        raise AmbiguousVmError(
            f"VM {vm!r}",
            why=f"{len(newest)} VMs have that name",
            remedy=f"Name one by its id, or a point of it: {which}.",
        )


def ask_for_restore(
    session: Session,
    *,
    vm: str,
    disk_key: str,
    proxy: str,
    target_path: str,
    now: float,
    point: str | None = None,
    repository: str | None = None,
    overwrite: bool = False,
) -> Restore:
    """Ask for a disk to be written to `target_path` on `proxy`.

    Raises `NoSuchVmError`, `NoSuchPointError` or `NoSuchDiskError`.
    """
    source = find_point(session, vm, point, repository=repository)
    if disk_key not in {disk.key for disk in source.disks}:
        raise NoSuchDiskError(
            f"disk {disk_key!r} of VM {vm!r}",
            why=f"restore point {source.point} has {', '.join(disk.key for disk in source.disks)}",
        )
    restore = Restore(
        id=new_id(now),
        repository=source.repository,
        vm_id=source.vm_id,
        vm_name=source.vm_name,
        point=source.point,
        disk_key=disk_key,
        proxy=proxy,
        target_path=target_path,
        overwrite=overwrite,
        created_at=now,
    )
    session.add(restore)
    return restore


def ask_for_upkeep(session: Session, kind: RequestKind, repository: str, *, now: float) -> Request:
    """Ask for a repository to be rescanned, checked, scrubbed or collected; raises `NoSuchRepositoryError`."""
    if session.get(Repository, repository) is None:
        raise NoSuchRepositoryError(
            f"repository {repository!r}",
            why="no repository has that name",
            remedy="`scheduler repository list` shows them.",
        )
    request = Request(id=new_id(now), kind=kind, repository=repository, created_at=now)
    session.add(request)
    return request


def ask_to_delete(session: Session, point: Point, *, now: float, reason: str | None = None) -> Request:
    """Ask for a restore point to be removed; asked for twice, it is one request.

    Raises `PointPinnedError`, `PointInUseError`.
    """
    if point.pinned:
        raise PointPinnedError(
            f"restore point {point.point} of VM {point.vm_name}",
            why="it is pinned",
            remedy=f"`scheduler point unpin {point.vm_name} {point.point}` allows it.",
        )
    if restore_id := points_in_use(session, point.repository).get((point.vm_id, point.point)):
        raise PointInUseError(
            f"restore point {point.point} of VM {point.vm_name}",
            why=f"a VM runs from it, by restore {restore_id}",
            remedy=f"`scheduler restore migrate {restore_id}` moves its disks to production, and lets go of it.",
        )
    asked = deletion_of(session, point)
    if asked is None:
        asked = Request(
            id=new_id(now),
            kind=RequestKind.DELETE_POINT,
            repository=point.repository,
            vm_id=point.vm_id,
            vm_name=point.vm_name,
            point=point.point,
            reason=reason,
            created_at=now,
        )
        session.add(asked)
    return asked


def ask_to_boot(session: Session, point: Point, wishes: BootWishes, *, now: float) -> Request:
    """Ask for a VM to be started from a restore point, as proof that it does."""
    request = Request(
        id=new_id(now),
        kind=RequestKind.BOOT_POINT,
        repository=point.repository,
        vm_id=point.vm_id,
        vm_name=point.vm_name,
        point=point.point,
        boot=wishes,
        created_at=now,
    )
    session.add(request)
    return request


def pin(session: Session, point: Point, *, pinned: bool) -> None:
    """Have a restore point stay whatever its job says, or no more. Raises `PointLeavingError`."""
    if pinned:
        require_staying(session, point)
    point.pinned = pinned


def require_staying(session: Session, point: Point) -> None:
    """Raise `PointLeavingError` if a restore point is being removed."""
    if deletion_of(session, point) is not None:
        raise PointLeavingError(
            f"restore point {point.point} of VM {point.vm_name}",
            why="it is being removed",
            remedy="`scheduler point list` shows which others there are.",
        )


def points_in_use(session: Session, repository: str) -> dict[tuple[str, str], str]:
    """Points of a repository that VMs run from, by VM's id and point, each with a restore that does it.

    They stay until it has ended, whatever their job or anybody says.
    """
    active = [state for state in VmRestoreState if not state.final]
    running = select(VmRestore.vm_id, VmRestore.point, VmRestore.id).where(
        VmRestore.state.in_(active), VmRestore.repository == repository, VmRestore.share.is_not(None)
    )
    return {(vm_id, point): restore_id for vm_id, point, restore_id in session.execute(running)}


def deletion_of(session: Session, point: Point) -> Request | None:
    """The request to remove a point that hasn't ended, if any."""
    asked = select(Request).where(
        Request.kind == RequestKind.DELETE_POINT,
        Request.repository == point.repository,
        Request.vm_id == point.vm_id,
        Request.point == point.point,
        Request.state.in_([state for state in WorkState if not state.final]),
    )
    return session.scalars(asked).first()


def ask_for_scan(session: Session, vcenter: str, *, now: float) -> VcenterScan:
    """Ask for a vCenter to be read again; raises `NoSuchVcenterError`."""
    if session.get(Vcenter, vcenter) is None:
        raise NoSuchVcenterError(
            f"vCenter {vcenter!r}", why="no vCenter has that name", remedy="`scheduler vcenter list` shows them."
        )
    scan = VcenterScan(id=new_id(now), vcenter=vcenter, created_at=now)
    session.add(scan)
    return scan
