"""The task `vm.create`: a VM made anew by what a restore point says of it, with empty disks."""

from __future__ import annotations

import threading
from typing import Final

from proxy_worker.contract.errors import CancelledError, NotFoundError
from proxy_worker.contract.outcome import CreatedDisk, VmCreateResult
from proxy_worker.contract.specification import VmCreate
from proxy_worker.contract.subjects import DiskAddress, VsphereDisk
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.transport.vmx_hardware import parse_hardware

_VMX: Final = ".vmx"
_NVRAM: Final = ".nvram"


class NoConfigurationError(NotFoundError):
    """A restore point doesn't have the VMX that making its VM takes."""


class ToldToStop(threading.Event):
    """Set as soon as the control says stop."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    def is_set(self) -> bool:
        return self._control.verdict() is Verdict.STOP


def create_vm(body: VmCreate, bench: Bench, claim: Claim, keeper: Control) -> VmCreateResult:
    """Make the VM, or adopt the one that an earlier try of this restore made; put its NVRAM beside it.

    What a failure leaves carries the restore's mark, and is deleted by it.
    """
    # pyvmomi takes half a second to load, and few tasks need it.
    from proxy_worker.vsphere.identity import split_path  # noqa: PLC0415
    from proxy_worker.vsphere.lookup import datastore_types  # noqa: PLC0415
    from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make  # noqa: PLC0415
    from proxy_worker.vsphere.session import read_password  # noqa: PLC0415
    from proxy_worker.vsphere.tasks import Waiting  # noqa: PLC0415
    from proxy_worker.vsphere.upload import upload  # noqa: PLC0415

    repository = bench.repository(body.repository, "read")
    point = repository.point(body.vm.vm_id, body.run)
    vmx, nvram = _configuration(repository, point)
    place = body.place
    machine = NewMachine(
        name=body.name,
        hardware=parse_hardware(vmx, f"the VMX in restore point {body.run}"),
        disks=tuple(
            NewDisk(
                disk.key,
                disk.size_bytes,
                body.disk_datastores.get(disk.key, place.datastore),
                body.disk_files.get(disk.key),
            )
            for disk in point.disks
        ),
        instance_uuid=body.instance_uuid,
        mark=body.mark,
        same_machine=body.same_machine,
        folder=place.folder,
        pool=place.pool,
        host=place.host,
        datastore=place.datastore,
        disk_format=body.disk_format,
        networks=body.networks,
    )
    stopped = ToldToStop(keeper)
    if stopped.is_set():
        raise CancelledError(claim.title, why="it was told to stop before the VM was made")
    with bench.vsphere.sessions(body.vcenter).borrow() as session:
        made = make(session, machine, Waiting(cancelled=stopped))
        types = datastore_types(session, made.datastores)
    warnings = list(made.warnings)
    if nvram is not None:
        datastore, path = split_path(made.configuration_path)
        endpoint = bench.vsphere.endpoint(body.vcenter)
        upload(
            endpoint,
            read_password(endpoint, bench.vsphere.secrets_dir),
            nvram,
            datacenter=place.datacenter,
            datastore=datastore,
            path=f"{path.rpartition('/')[0]}/{body.name}{_NVRAM}",
        )
    wanted = {disk.key for disk in point.disks}
    disks = []
    for disk in made.disks:
        if disk.place not in wanted:
            continue
        datastore, path = split_path(disk.path or "")
        address = DiskAddress(
            datastore=body.declared.get(datastore),
            path=path,
            vsphere=VsphereDisk(
                vcenter=body.vcenter,
                vm=made.ref,
                snapshot=None,
                key=disk.key,
                path=disk.path or "",
                uuid=disk.uuid,
                controller=disk.controller,
                datastore_type=types.get(datastore, "unknown"),
            ),
        )
        disks.append(CreatedDisk(key=disk.place, target=address, size_bytes=disk.size_bytes))
    return VmCreateResult(vm=made.ref, name=made.name, disks=tuple(disks), warnings=tuple(warnings))


def _configuration(repository: Repository, point: Point) -> tuple[bytes, bytes | None]:
    """The VMX and, where there is one, the NVRAM of a restore point."""
    with repository.reader(point) as reader:
        files = {file.name.lower(): file for file in point.configuration}
        vmx = next((file for name, file in files.items() if name.endswith(_VMX)), None)
        nvram = next((file for name, file in files.items() if name.endswith(_NVRAM)), None)
        if vmx is None:
            raise NoConfigurationError(
                f"VM {point.vm_name}",
                why=f"restore point {point.run} has no VMX, so what it is made of isn't known",
                remedy="Make a VM by hand, and restore its disks with `scheduler restore disk --to-vm`.",
            )
        return reader.read_file(vmx), reader.read_file(nvram) if nvram is not None else None
