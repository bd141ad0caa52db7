"""Making a VM anew: its hardware as it was, disks at their places, cards on the networks that are told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.contract.names import DiskFormat
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.faults import VsphereError
from proxy_worker.vsphere.guests import OTHER, guest_id
from proxy_worker.vsphere.hardware import Controller, Hardware
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.networks import Network, backing, read_networks, switch_uuids
from proxy_worker.vsphere.placing import NoSuchPlaceError
from proxy_worker.vsphere.restored import MARK, ForeignVmError, find, mark_of
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

_PLACE: Final = re.compile(r"(scsi|sata|nvme|ide)(\d{1,2}):(\d{1,3})")
_IDE_KEYS: Final = 200
"""vSphere's own keys of the IDE controllers, which every VM has."""
_NEW_KEYS: Final = {"scsi": 1000, "sata": 15000, "nvme": 31000}
_CARD_KEYS: Final = 4000
_device = vim.vm.device
SCSI: Final[Mapping[str, type]] = {
    "buslogic": _device.VirtualBusLogicController,
    "lsilogic": _device.VirtualLsiLogicController,
    "lsisas1068": _device.VirtualLsiLogicSASController,
    "pvscsi": _device.ParaVirtualSCSIController,
}
CARDS: Final[Mapping[str, type]] = {
    "vlance": _device.VirtualPCNet32,
    "pcnet32": _device.VirtualPCNet32,
    "vmxnet": _device.VirtualVmxnet2,
    "vmxnet2": _device.VirtualVmxnet2,
    "vmxnet3": _device.VirtualVmxnet3,
    "e1000": _device.VirtualE1000,
    "e1000e": _device.VirtualE1000e,
}


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk that the VM is to have."""

    place: str
    """Controller and unit, e.g. `scsi0:0`."""
    size_bytes: int
    datastore: str
    file: str | None = None
    """One that is there, as `[datastore] folder/name.vmdk`; None: an empty one is made."""


@dataclass(frozen=True, slots=True)
class NewMachine:
    """What is to be made, and where, in managed object ids."""

    name: str
    hardware: Hardware
    disks: Sequence[NewDisk]
    instance_uuid: str
    mark: str
    same_machine: bool
    """Whether it keeps the BIOS uuid and the generated MAC addresses."""
    folder: str
    pool: str
    host: str | None
    datastore: str
    disk_format: DiskFormat = DiskFormat.THIN
    networks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """The VM, with its disks by place."""

    ref: str
    name: str
    configuration_path: str
    disks: tuple[VirtualDisk, ...]
    datastores: tuple[str, ...]
    """Managed object ids."""
    warnings: tuple[str, ...]


def make(session: Session, machine: NewMachine, waiting: Waiting | None = None) -> Made:
    """Make the VM, or adopt the one that an earlier try of the same restore made.

    Raises `ForeignVmError` where another VM has its instance uuid, `NoSuchPlaceError` for a network that isn't
    there, and what `faults` names.
    """
    there = find(session, machine.instance_uuid)
    warnings: list[str] = []
    if there is None:
        spec = _spec(session, machine, warnings)
        folder = vim.Folder(machine.folder, session.stub)
        pool = vim.ResourcePool(machine.pool, session.stub)
        host = vim.HostSystem(machine.host, session.stub) if machine.host is not None else None
        what = f"making VM {machine.name}"
        made = finish(session, what, lambda: folder.CreateVM_Task(spec, pool, host), waiting)
        there = str(made._moId)  # pyvmomi offers no other way
    elif mark_of(session, there) != machine.mark:
        raise ForeignVmError(
            f"VM {machine.name}",
            why=f"vCenter already has a VM with the instance uuid {machine.instance_uuid}",
            remedy="Restore it under another name, or over that VM.",
        )
    vm = read_vm(session, there)
    missing = {disk.place for disk in machine.disks} - {disk.place for disk in vm.disks}
    if missing or vm.configuration_path is None:
        raise VsphereError(
            f"making VM {machine.name}", why=f"it came without {', '.join(sorted(missing)) or 'VMX'}"
        )
    return Made(there, vm.name, vm.configuration_path, vm.disks, vm.datastores, tuple(warnings))


def _spec(session: Session, machine: NewMachine, warnings: list[str]) -> Any:
    hardware = machine.hardware
    guest = guest_id(hardware.guest_os)
    if guest is None:
        warnings.append(f"vSphere has no name for the guest {hardware.guest_os!r}: it is set to other (64-bit)")
    if hardware.has_vtpm:
        warnings.append("its virtual TPM isn't restored: what it kept is lost")
    controllers, keys = _controllers(hardware.controllers, machine.disks)
    disks = [_disk(disk, keys, machine.disk_format, number) for number, disk in enumerate(machine.disks)]
    version = f"vmx-{hardware.hardware_version:02}" if hardware.hardware_version else None
    return vim.vm.ConfigSpec(
        name=machine.name,
        instanceUuid=machine.instance_uuid,
        uuid=hardware.bios_uuid if machine.same_machine else None,
        guestId=guest or OTHER,
        version=version,
        numCPUs=hardware.cpus,
        numCoresPerSocket=hardware.cores_per_socket,
        memoryMB=hardware.memory_mib,
        firmware=hardware.firmware,
        bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=True) if hardware.secure_boot else None,
        annotation=hardware.annotation or None,
        files=vim.vm.FileInfo(vmPathName=f"[{machine.datastore}]"),
        extraConfig=[
            vim.option.OptionValue(key=MARK, value=machine.mark),
            *([vim.option.OptionValue(key="disk.EnableUUID", value="TRUE")] if hardware.shows_disk_uuids else []),
            *([vim.option.OptionValue(key="nvram", value=f"{machine.name}.nvram")] if hardware.nvram else []),
        ],
        deviceChange=[_add(one) for one in controllers] + disks + _cards(session, machine, warnings),
    )


def _add(made: Any, **more: Any) -> Any:
    return _device.VirtualDeviceSpec(operation="add", device=made, **more)


def _controllers(known: Sequence[Controller], disks: Sequence[NewDisk]) -> tuple[list[Any], dict[str, int]]:
    """The controllers to add, and the device keys of those that disks hang at."""
    models = {f"{one.kind}{one.bus}": one.model for one in known}
    wanted = dict.fromkeys([*models, *(disk.place.partition(":")[0] for disk in disks)])
    made, keys = [], {}
    for name in sorted(wanted):
        matched = _PLACE.fullmatch(f"{name}:0")
        if matched is None:
            raise VsphereError(f"disk at {name}", why="that isn't a place of a virtual disk")
        kind, bus = matched[1], int(matched[2])
        if kind == "ide":
            keys[name] = _IDE_KEYS + bus
            continue
        keys[name] = key = _NEW_KEYS[kind] + bus
        if kind == "scsi":
            cls = SCSI.get(models.get(name, ""), _device.VirtualLsiLogicController)
            made.append(cls(key=key, busNumber=bus, sharedBus="noSharing"))
        elif kind == "sata":
            made.append(_device.VirtualAHCIController(key=key, busNumber=bus))
        else:
            made.append(_device.VirtualNVMEController(key=key, busNumber=bus))
    return made, keys


def _disk(disk: NewDisk, keys: Mapping[str, int], how: DiskFormat, number: int) -> Any:
    controller, _, unit = disk.place.partition(":")
    path = disk.file or f"[{disk.datastore}]"
    there = disk.file is not None
    return new_disk(disk.size_bytes, path, keys[controller], int(unit), how, key=-1 - number, there=there)


def new_disk(
    size_bytes: int, path: str, controller: int, unit: int, how: DiskFormat, *, key: int = -1, there: bool = False
) -> Any:
    """The change that makes an empty disk, or takes one that is `there`.

    `path` is `[datastore] folder/name.vmdk`, or, for a new one, the datastore alone.
    """
    flat = _device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path,
        diskMode="persistent",
        thinProvisioned=how is DiskFormat.THIN,
        eagerlyScrub=how is DiskFormat.EAGER,
    )
    made = _device.VirtualDisk(
        key=key,
        controllerKey=controller,
        unitNumber=unit,
        backing=flat,
        capacityInBytes=size_bytes,
        capacityInKB=size_bytes >> 10,
    )
    return _add(made) if there else _add(made, fileOperation="create")


def _cards(session: Session, machine: NewMachine, warnings: list[str]) -> list[Any]:
    cards = machine.hardware.cards
    unknown = set(machine.networks) - {card.network for card in cards}
    if unknown:
        has = ", ".join(sorted({card.network for card in cards if card.network})) or "no network by name"
        raise NoSuchPlaceError(
            f"network {sorted(unknown)[0]!r}",
            why=f"the VM in the restore point has {has}",
            remedy="Correct --network OLD=NEW.",
        )
    if not cards:
        return []
    networks = {network.name: network for network in read_networks(session)}
    switches = switch_uuids(session) if any(network.switch for network in networks.values()) else {}
    changes = []
    for card in cards:
        target = _network(machine, card.network, networks)
        if target is None:
            warnings.append(f"network card {card.number} isn't connected: its distributed port group isn't known")
        made = CARDS.get(card.model, _device.VirtualVmxnet3)(
            key=_CARD_KEYS + card.number,
            backing=backing(session, target, switches) if target else None,
            connectable=_device.VirtualDevice.ConnectInfo(
                startConnected=card.connected and target is not None, allowGuestControl=True, connected=False
            ),
            addressType="manual" if card.mac_is_static else "generated",
        )
        if card.mac is not None and (machine.same_machine or card.mac_is_static):
            made.macAddress = card.mac
            made.addressType = "manual" if card.mac_is_static else "assigned"
        changes.append(_add(made))
    return changes


def _network(machine: NewMachine, name: str | None, networks: Mapping[str, Network]) -> Network | None:
    if name is None:
        return None
    wanted = machine.networks.get(name, name)
    if wanted not in networks:
        raise NoSuchPlaceError(
            f"network {wanted!r}",
            why="vCenter has no network of that name",
            remedy=f"Say --network {name!r}=NEW; there are: {', '.join(sorted(networks)[:10])}.",
        )
    return networks[wanted]
