"""VMs made for a test, through the API."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.simulator import VsphereSimulator

MIB = 1 << 20
_numbers = itertools.count(1)
device = vim.vm.device


def controller(kind: str, key: int) -> Any:
    """One controller of a kind."""
    kinds = {
        "scsi": lambda: device.ParaVirtualSCSIController(key=key, busNumber=0, sharedBus="noSharing"),
        "sata": lambda: device.VirtualAHCIController(key=key, busNumber=0),
        "nvme": lambda: device.VirtualNVMEController(key=key, busNumber=0),
        "ide": lambda: device.VirtualIDEController(key=key, busNumber=0),
    }
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=kinds[kind]())


def disk(place: tuple[int, int], size_bytes: int, path: str, **backing: Any) -> Any:
    """A new disk at (controller key, unit)."""
    flat = device.VirtualDisk.FlatVer2BackingInfo(fileName=path, **({"diskMode": "persistent"} | backing))
    made = device.VirtualDisk(
        key=-(place[0] + place[1]),
        controllerKey=place[0],
        unitNumber=place[1],
        backing=flat,
        capacityInKB=size_bytes >> 10,
        capacityInBytes=size_bytes,
    )
    return vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=made)


def make_vm(
    session: Session,
    *sizes: int,
    name: str = "",
    devices: Sequence[Any] = (),
    datastore: str = "LocalDS_0",
    track_changes: bool = False,
) -> Vm:
    """A VM with SCSI disks of these sizes, and `devices` besides."""
    name = name or f"vm-of-test-{next(_numbers)}"
    changes = [controller("scsi", 1000)]
    changes += [disk((1000, unit), size, f"[{datastore}] {name}/d{unit}.vmdk") for unit, size in enumerate(sizes)]
    center = session.content.rootFolder.childEntity[0]
    spec = vim.vm.ConfigSpec(
        name=name,
        guestId="otherGuest",
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}]"),
        deviceChange=[*changes, *devices],
        changeTrackingEnabled=track_changes,
    )
    compute = next(found for found in center.hostFolder.childEntity if len(found.host) > 1)
    pool = compute.resourcePool
    made = finish(session, f"making {name}", lambda: center.vmFolder.CreateVM_Task(spec, pool, compute.host[0]))
    return read_vm(session, made._moId)


def write(server: VsphereSimulator, path: str, offset: int, data: bytes) -> None:
    """Change a VM's disk behind its back, as the guest does."""
    server.write(path, (offset, data))
