"""What is known of VMs: where they are, which jobs protect them, and their newest restore points.

A VM is known because a vCenter showed it, because it is declared with its disks, or because it has restore points:
VMs in datastores that are folders are known by these alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from scheduler.cli.finding import remedy
from scheduler.planning.candidates import Candidate, CandidateDisk
from scheduler.planning.criteria import DiskExclusion
from scheduler.planning.matching import excludes
from scheduler.planning.selection import belongs
from scheduler.reports.shown import Moment, Shown
from scheduler.runs.standbys import standbys
from scheduler.state.errors import AmbiguousVmError, NoSuchVmError
from scheduler.state.models import Job, JobKind, Point, Vcenter, VcenterVm, Vm
from scheduler.state.scanning import catalogued_candidates


class KnownDisk(Shown):
    """A disk of a VM."""

    disk: str
    size_bytes: int | None
    provisioning: str | None
    """`thin`, `lazy_zeroed`, …; None where no vCenter tells."""
    mode: str | None
    """`persistent`, `independent_persistent`, …"""
    datastore: str | None
    path: str | None
    left_out: str | None
    """Why it isn't in restore points."""


class LastPoint(Shown):
    """The newest restore point of a VM."""

    point: str
    repository: str
    job: str
    created: Moment


class KnownVm(Shown):
    """A VM or template; also what `--json` prints."""

    vm: str
    vm_id: str
    source: str
    """`vcenter`, `declared`, or `points`: what it is known by."""
    vcenter: str | None
    ref: str | None
    folder: str | None
    cluster: str | None
    pool: str | None
    host: str | None
    template: bool
    powered_on: bool | None
    tags: tuple[str, ...]
    attributes: Mapping[str, str]
    snapshots: int | None
    """How many it had when it was seen."""
    changed_block_tracking: str | None
    """`on`, `off`, or `not supported`."""
    jobs: tuple[str, ...]
    """Those that take it."""
    points: int
    last_point: LastPoint | None
    disks: tuple[KnownDisk, ...]
    problem: str | None
    """Why it can't be protected as it stands."""
    seen: Moment | None
    """When its vCenter was last read."""


@dataclass(frozen=True)
class _Protection:
    """The restore points of a VM."""

    newest: Point
    count: int


def known_vms(session: Session) -> list[KnownVm]:
    """Every VM that is known, in the order of names."""
    protected = _protected(session)
    jobs = session.scalars(select(Job).where(Job.kind == JobKind.BACKUP).order_by(Job.name)).all()
    vcenters = {row.name: row for row in session.scalars(select(Vcenter))}
    rows = {(row.vcenter, row.ref): row for row in session.scalars(select(VcenterVm))}
    replicas = standbys(session)
    found = []
    for candidate in catalogued_candidates(session, vcenters):
        row = rows[candidate.vcenter or "", candidate.ref or ""]
        its_jobs = [job for job in jobs if replicas.may_be_taken(candidate, job.vms)]
        found.append(_of_vcenter(row, candidate, vcenters[row.vcenter], its_jobs, protected.get(row.vm_id)))
    for declared in session.scalars(select(Vm)):
        candidate = _declared(declared)
        found.append(_elsewhere(candidate, "declared", jobs, protected.get(candidate.identity.vm_id)))
    seen = {vm.vm_id for vm in found}
    for vm_id, protection in protected.items():
        if vm_id not in seen:
            found.append(_elsewhere(_of_point(protection.newest), "points", jobs, protection))
    return sorted(found, key=lambda vm: (vm.vm, vm.vcenter or "", vm.vm_id))


def find_vm(session: Session, vm: str) -> KnownVm:
    """The VM of that name or id; raises `NoSuchVmError`, or `AmbiguousVmError`."""
    everything = known_vms(session)
    found = [known for known in everything if vm in {known.vm, known.vm_id}]
    if not found:
        names = sorted({known.vm for known in everything})
        raise NoSuchVmError(
            f"VM {vm!r}",
            why="no vCenter showed it, it isn't declared, and no restore point of it is known",
            remedy=remedy(vm, names, "`scheduler vm list` shows those that are; `scheduler vcenter rescan` looks."),
        )
    if len(found) > 1:
        which = ", ".join(f"{known.vm_id} ({known.folder or known.source})" for known in found)
        raise AmbiguousVmError(f"VM {vm!r}", why=f"{len(found)} VMs have that name", remedy=f"Name an id: {which}.")
    return found[0]


def _protected(session: Session) -> dict[str, _Protection]:
    """By VM, its newest point and how many there are."""
    of_vm = select(Point.vm_id, func.max(Point.created_at).label("newest"), func.count().label("points"))
    groups = of_vm.group_by(Point.vm_id).subquery()
    newest = select(Point, groups.c.points).join(
        groups, (Point.vm_id == groups.c.vm_id) & (Point.created_at == groups.c.newest)
    )
    found = session.execute(newest.order_by(Point.point)).all()
    return {point.vm_id: _Protection(point, count) for point, count in found}


def _of_vcenter(
    row: VcenterVm, candidate: Candidate, vcenter: Vcenter, jobs: Iterable[Job], points: _Protection | None
) -> KnownVm:
    taken = _jobs(candidate, jobs)
    return KnownVm(
        vm=row.name,
        vm_id=row.vm_id,
        source="vcenter",
        vcenter=row.vcenter,
        ref=row.ref,
        folder=row.folder,
        cluster=row.cluster,
        pool=row.pool,
        host=row.host,
        template=row.template,
        powered_on=row.powered_on,
        tags=row.tags,
        attributes=row.attributes,
        snapshots=row.snapshots,
        changed_block_tracking=_tracking(row),
        jobs=tuple(job.name for job in taken),
        points=points.count if points is not None else 0,
        last_point=_last(points),
        disks=tuple(
            KnownDisk(
                disk=disk.key,
                size_bytes=disk.size_bytes,
                provisioning=disk.provisioning,
                mode=disk.mode,
                datastore=disk.datastore,
                path=disk.path,
                left_out=_left_out(candidate, one, taken),
            )
            for disk, one in zip(row.disks, candidate.disks, strict=True)
        ),
        problem=row.problem,
        seen=vcenter.scanned_at,
    )


def _elsewhere(candidate: Candidate, source: str, jobs: Iterable[Job], points: _Protection | None) -> KnownVm:
    """A VM that no vCenter showed."""
    taken = _jobs(candidate, jobs)
    return KnownVm(
        vm=candidate.identity.name,
        vm_id=candidate.identity.vm_id,
        source=source,
        vcenter=None,
        ref=None,
        folder=None,
        cluster=None,
        pool=None,
        host=None,
        template=False,
        powered_on=None,
        tags=(),
        attributes={},
        snapshots=None,
        changed_block_tracking=None,
        jobs=tuple(job.name for job in taken),
        points=points.count if points is not None else 0,
        last_point=_last(points),
        disks=tuple(
            KnownDisk(
                disk=disk.identity.key,
                size_bytes=disk.identity.size_bytes,
                provisioning=None,
                mode=None,
                datastore=disk.identity.address.datastore,
                path=disk.identity.address.path or disk.identity.address.nbd_uri,
                left_out=_left_out(candidate, disk, taken),
            )
            for disk in candidate.disks
        ),
        problem=None,
        seen=None,
    )


def _declared(vm: Vm) -> Candidate:
    disks = (
        CandidateDisk(DiskIdentity(key=disk.key, address=DiskAddress(nbd_uri=disk.nbd_uri))) for disk in vm.disks
    )
    return Candidate(VmIdentity.of_name(vm.name), tuple(disks))


def _of_point(point: Point) -> Candidate:
    """The VM as its newest point has it: where its disks lie now is found out when it is backed up."""
    disks = (
        CandidateDisk(DiskIdentity(key=disk.key, address=DiskAddress(), size_bytes=disk.size_bytes))
        for disk in point.disks
    )
    return Candidate(VmIdentity(vm_id=point.vm_id, name=point.vm_name), tuple(disks))


def _jobs(candidate: Candidate, jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if belongs(candidate, job.vms, job.criteria)]


def _left_out(candidate: Candidate, disk: CandidateDisk, jobs: Sequence[Job]) -> str | None:
    """Why no job, or not every one of them, has this disk in its restore points."""
    if disk.obstacle is not None:
        return disk.obstacle
    leaving_out = [
        job.name
        for job in jobs
        if any(excludes(DiskExclusion.parse(text), candidate, disk) for text in job.criteria.exclude_disks)
    ]
    return f"excluded by {', '.join(leaving_out)}" if leaving_out else None


def _last(points: _Protection | None) -> LastPoint | None:
    if points is None:
        return None
    newest = points.newest
    return LastPoint(point=newest.point, repository=newest.repository, job=newest.job, created=newest.created_at)


def _tracking(row: VcenterVm) -> str:
    if row.tracks_changes:
        return "on"
    return "off" if row.can_track_changes else "not supported"
