"""By which transport modes each proxy could read a VM's disks, and why not by the others."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import AUTOMATIC
from proxy_worker.contract.selection import DiskTraits, Home, choose, traits_of
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity
from proxy_worker.ledger import FleetView
from scheduler.cli.vm_record import KnownVm, find_vm
from scheduler.dispatch.declared import DeclaredFleet
from scheduler.dispatch.fleet import FleetProxy
from scheduler.reports.shown import Shown
from scheduler.state.models import DiskTask, Job, VcenterVm, Vm, VmRun
from scheduler.state.scanning import catalogued_candidates


class ModeRecord(Shown):
    """One mode for one disk on one proxy."""

    mode: str
    refusal: str | None
    """Why the proxy can't read the disk by it; None when it can, as far as is known before it tries."""


class ExplainedDisk(Shown):
    """One disk on one proxy; also what `--json` prints."""

    vm: str
    disk: str
    proxy: str
    running: bool
    """Whether the proxy is there to take tasks."""
    reads_by: tuple[str, ...]
    """The modes that it would try, in order; after the first, only network mode follows if that fails."""
    modes: tuple[ModeRecord, ...]
    """All of them, best first."""


def explain(session: Session, view: FleetView, vm: str, job: Job | None) -> list[ExplainedDisk]:
    """Each disk of a VM on each proxy that has registered; as `job` would have it read, or automatically.

    Raises `NoSuchVmError` and `AmbiguousVmError`.
    """
    found = find_vm(session, vm)
    declared = DeclaredFleet.load(session)
    proxies = [declared.proxy(seen) for _, seen in sorted(view.proxies.items())]
    return [_explained(found, disk, proxy, job) for disk in _disks(session, found, job) for proxy in proxies]


def _explained(vm: KnownVm, disk: DiskIdentity, proxy: FleetProxy, job: Job | None) -> ExplainedDisk:
    choice = choose(
        _traits(disk),
        proxy.offer,
        job.transport_mode if job is not None else AUTOMATIC,
        failover_to_network=job.failover_to_network if job is not None else True,
    )
    return ExplainedDisk(
        vm=vm.vm,
        disk=disk.key,
        proxy=proxy.name,
        running=proxy.live and proxy.enabled,
        reads_by=choice.candidates,
        modes=tuple(ModeRecord(mode=verdict.mode, refusal=verdict.refusal) for verdict in choice.verdicts),
    )


def _traits(disk: DiskIdentity) -> DiskTraits:
    traits = traits_of(disk.address, disk.size_bytes)
    return traits.with_snapshot_on_demand() if traits.home is Home.VCENTER else traits


def _disks(session: Session, vm: KnownVm, job: Job | None) -> Sequence[DiskIdentity]:
    """A VM's disks: as its vCenter showed them last, as they are declared, or as its last backup read them."""
    if vm.vcenter is not None:
        row = session.get_one(VcenterVm, (vm.vcenter, vm.ref))
        quiesced = row.windows and row.tools_running and (job is None or job.quiesce != "never")
        return [
            _as_frozen(disk.identity, quiesced_windows=quiesced)
            for candidate in catalogued_candidates(session, [vm.vcenter])
            if candidate.ref == vm.ref
            for disk in candidate.disks
            if disk.obstacle is None
        ]
    declared = session.get(Vm, vm.vm)
    if declared is not None:
        return [DiskIdentity(key=disk.key, address=DiskAddress(nbd_uri=disk.nbd_uri)) for disk in declared.disks]
    newest = (
        select(VmRun.id)
        .join(DiskTask, DiskTask.vm_run_id == VmRun.id)
        .where(VmRun.vm_id == vm.vm_id)
        .order_by(VmRun.started_at.desc())
        .limit(1)
    )
    last = select(DiskTask).where(DiskTask.vm_run_id == newest.scalar_subquery()).order_by(DiskTask.disk_key)
    return [
        DiskIdentity(key=task.disk_key, address=task.address, size_bytes=task.size_bytes)
        for task in session.scalars(last)
    ]


def _as_frozen(disk: DiskIdentity, *, quiesced_windows: bool) -> DiskIdentity:
    """The disk as a job would find it, once the VM is frozen."""
    vsphere = disk.address.vsphere
    if vsphere is None:
        return disk
    frozen = vsphere.model_copy(update={"quiesced_windows": quiesced_windows})
    return disk.model_copy(update={"address": disk.address.model_copy(update={"vsphere": frozen})})
