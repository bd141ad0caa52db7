"""The VMs of the demo's vCenter: made through its API, their disks with real filesystems of real files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from ops.demo.errors import DemoError
from ops.demo.machines import MIB, Disk, Machine, change_disk, descriptor_path, files_of_this_machine, fill
from ops.demo_vsphere.layout import USER
from tests.simulators.vsphere.program import GuestDisk, VsphereSimulator

MACHINES = (
    Machine("web01", "nfs-01", (Disk("scsi0:0", 320, 160), Disk("scsi0:1", 1024, 96, filesystem=False))),
    Machine("db01", "vmfs-01", (Disk("scsi0:0", 256, 96), Disk("scsi0:1", 2048, 96, filesystem=False))),
    Machine("files01", "vmfs-01", (Disk("scsi0:0", 20 * 1024, 192),)),
)
_SCSI = 1000
_device = vim.vm.device


@dataclass(frozen=True)
class Account:
    """Who makes the VMs."""

    simulator: VsphereSimulator
    password: str


def make_machines(account: Account, scratch: Path) -> None:
    """Create every VM, fill its disks, and switch it on."""
    simulator = account.simulator
    session = SmartConnect(
        host=simulator.host, port=simulator.port, user=USER, pwd=account.password, disableSslCertValidation=True
    )
    try:
        center = session.content.rootFolder.childEntity[0]
        compute = next(found for found in center.hostFolder.childEntity if len(found.host) > 1)
        files = files_of_this_machine()
        for machine in MACHINES:
            task = center.vmFolder.CreateVM_Task(_spec(machine), compute.resourcePool, compute.host[0])
            vm = _result(task, f"making {machine.name}")
            for disk in machine.disks:
                fill(guest_disk(simulator, machine, disk).file, disk, files, scratch / machine.name)
            _result(vm.PowerOnVM_Task(), f"switching {machine.name} on")
    finally:
        Disconnect(session)


def guest_disk(simulator: VsphereSimulator, machine: Machine, disk: Disk) -> GuestDisk:
    """A disk as its VM uses it now."""
    name = descriptor_path(Path(machine.name), disk).name
    return next(
        found for found in simulator.disks() if found.name == machine.name and found.path.endswith(f"/{name}")
    )


def guest_disks(simulator: VsphereSimulator, vm: str) -> list[GuestDisk]:
    """The disks of a VM by its name, in the order of their device keys."""
    return sorted((disk for disk in simulator.disks() if disk.name == vm), key=lambda disk: disk.key)


def let_a_day_pass(simulator: VsphereSimulator, machine: Machine, disk: Disk, scratch: Path) -> str:
    """Change a disk as a day of work does; says in a few words what changed."""
    return change_disk(guest_disk(simulator, machine, disk).file, disk, scratch)


def _spec(machine: Machine) -> Any:
    controller = _device.ParaVirtualSCSIController(key=_SCSI, busNumber=0, sharedBus="noSharing")
    devices = [_device.VirtualDeviceSpec(operation="add", device=controller)]
    for unit, disk in enumerate(machine.disks):
        backing = _device.VirtualDisk.FlatVer2BackingInfo(
            fileName=f"[{machine.datastore}] {descriptor_path(Path(machine.name), disk)}",
            diskMode="persistent",
            thinProvisioned=True,
        )
        size_bytes = disk.size_mib * MIB
        made = _device.VirtualDisk(
            key=-(unit + 1),
            controllerKey=_SCSI,
            unitNumber=unit,
            backing=backing,
            capacityInKB=size_bytes >> 10,
            capacityInBytes=size_bytes,
        )
        devices.append(_device.VirtualDeviceSpec(operation="add", fileOperation="create", device=made))
    tools = vim.option.OptionValue(key="SET.guest.toolsRunningStatus", value="guestToolsRunning")
    return vim.vm.ConfigSpec(
        name=machine.name,
        guestId="debian12_64Guest",
        numCPUs=2,
        memoryMB=2048,
        files=vim.vm.FileInfo(vmPathName=f"[{machine.datastore}]"),
        deviceChange=devices,
        extraConfig=[tools],
    )


def _result(task: Any, what: str) -> Any:
    if task.info.state != "success":
        raise DemoError(f"{what} failed: {task.info.error}")
    return task.info.result
