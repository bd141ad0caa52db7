"""A VM's disks, out of the list of its virtual devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.vsphere.properties import reference


class Provisioning(StrEnum):
    """How a disk takes room on its datastore."""

    THIN = "thin"
    LAZY_ZEROED = "lazy_zeroed"
    EAGER_ZEROED = "eager_zeroed"
    RAW_VIRTUAL = "raw_virtual"
    """A LUN of the VM's own that snapshots work on (RDM in virtual compatibility mode)."""
    RAW_PHYSICAL = "raw_physical"
    """A LUN of the VM's own that no snapshot covers."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class VirtualDisk:
    """One virtual disk, as a VM or one of its snapshots has it."""

    key: int
    """vSphere's device key, what changed areas are asked by."""
    place: str
    """Controller and unit, e.g. `scsi0:0`: the disk's key in jobs and restore points."""
    controller: str
    """`scsi`, `sata`, `ide` or `nvme`."""
    label: str
    size_bytes: int
    provisioning: Provisioning
    mode: str
    """E.g. `persistent` or `independent_persistent`; no snapshot covers an independent disk."""
    path: str | None
    """`[datastore] folder/disk.vmdk`; within a snapshot, the file that was frozen."""
    datastore: str | None
    """The datastore's managed object id."""
    uuid: str | None
    change_id: str | None
    """Where changed block tracking stood; only a snapshot's disk has one that may be kept."""
    encrypted: bool = False

    @property
    def independent(self) -> bool:
        """Whether snapshots leave this disk out."""
        return self.mode.startswith("independent")

    @property
    def obstacle(self) -> str | None:
        """Why no snapshot can read this disk, or None."""
        if self.provisioning is Provisioning.RAW_PHYSICAL:
            return "a raw device mapping in physical mode: snapshots don't cover it"
        if self.independent:
            return f"its mode is {self.mode}: snapshots don't cover it"
        if self.path is None:
            return "it has no file on a datastore"
        return None


_CONTROLLERS: Final[tuple[tuple[type, str], ...]] = (
    (vim.vm.device.VirtualSCSIController, "scsi"),
    (vim.vm.device.VirtualAHCIController, "sata"),
    (vim.vm.device.VirtualSATAController, "sata"),
    (vim.vm.device.VirtualIDEController, "ide"),
    (vim.vm.device.VirtualNVMEController, "nvme"),
)


def controllers(devices: Iterable[Any]) -> dict[int, tuple[str, int]]:
    """Device key -> (kind, bus number) of every disk controller."""
    found = {}
    for device in devices:
        kind = next((name for cls, name in _CONTROLLERS if isinstance(device, cls)), None)
        if kind is not None:
            found[device.key] = (kind, device.busNumber)
    return found


def disks(devices: Iterable[Any]) -> tuple[VirtualDisk, ...]:
    """The disks among a VM's devices, in the order of their places."""
    devices = list(devices)
    buses = controllers(devices)
    found = [_disk(d, buses) for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
    return tuple(sorted(found, key=lambda disk: (disk.controller, disk.key)))


def _disk(device: Any, buses: dict[int, tuple[str, int]]) -> VirtualDisk:
    kind, bus = buses.get(device.controllerKey, ("disk", 0))
    backing = device.backing
    place = f"{kind}{bus}:{device.unitNumber}" if kind != "disk" else f"disk{device.key}"
    return VirtualDisk(
        key=device.key,
        place=place,
        controller=kind,
        label=device.deviceInfo.label if device.deviceInfo else place,
        size_bytes=device.capacityInBytes or device.capacityInKB * 1024,
        provisioning=_provisioning(backing),
        mode=getattr(backing, "diskMode", None) or "persistent",
        path=getattr(backing, "fileName", None) or None,
        datastore=reference(getattr(backing, "datastore", None)),
        uuid=getattr(backing, "uuid", None) or None,
        change_id=getattr(backing, "changeId", None) or None,
        encrypted=getattr(backing, "keyId", None) is not None,
    )


def _provisioning(backing: Any) -> Provisioning:
    backings = vim.vm.device.VirtualDisk
    if isinstance(backing, backings.RawDiskMappingVer1BackingInfo):
        physical = backing.compatibilityMode == "physicalMode"
        return Provisioning.RAW_PHYSICAL if physical else Provisioning.RAW_VIRTUAL
    if isinstance(backing, backings.SeSparseBackingInfo):
        return Provisioning.THIN
    if not isinstance(backing, backings.FlatVer2BackingInfo):
        return Provisioning.UNKNOWN
    if backing.thinProvisioned:
        return Provisioning.THIN
    return Provisioning.EAGER_ZEROED if backing.eagerlyScrub else Provisioning.LAZY_ZEROED
