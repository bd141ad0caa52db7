"""What a VM looks like in QEMU: as much like the VM as lets its guest start, and nothing that leads outside."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from proxy_worker.vsphere.hardware import Hardware

MOST_MEMORY_MIB: Final = 2048
"""Of a VM that has more: it only has to start."""
MEMORY_MIB: Final = 1024
"""Of a VM that doesn't say how much it has."""
_PLACE: Final = re.compile(r"(scsi|sata|nvme|ide)(\d+):\d+")
_SERIAL_PROMPT: Final = "io.systemd.credential:getty.ttys.serial=ttyS0"
"""Asks systemd 254 and later for a login prompt on the serial port: systemd-getty-generator(8)."""
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Firmware(StrEnum):
    """What starts a VM's boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


class DiskBus(StrEnum):
    """How a guest reaches its disks."""

    PVSCSI = "pvscsi"
    LSISAS1068 = "lsisas1068"
    SATA = "sata"
    IDE = "ide"
    NVME = "nvme"
    VIRTIO = "virtio"


_CONTROLLERS: Final[Mapping[DiskBus, str]] = {
    DiskBus.PVSCSI: "pvscsi",
    DiskBus.LSISAS1068: "mptsas1068",
    DiskBus.SATA: "ahci",
}
"""QEMU's names of the controllers that a machine doesn't have by itself."""
_BIOS_ONLY: Final = frozenset({DiskBus.PVSCSI, DiskBus.LSISAS1068})
"""SCSI controllers of VMware's that QEMU has, and UEFI as distributions build it no drivers for."""
_SLOTS: Final[Mapping[DiskBus, int]] = {
    DiskBus.PVSCSI: 15,
    DiskBus.LSISAS1068: 8,
    DiskBus.SATA: 6,
    DiskBus.IDE: 4,
    DiskBus.NVME: 1,
    DiskBus.VIRTIO: 1,
}
"""How many disks a controller takes."""


@dataclass(frozen=True, slots=True)
class MachineDisk:
    """A disk: its name with the NBD server, and how the guest reaches it."""

    key: str
    bus: DiskBus


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM to start. It has a serial port, a screen that nobody sees, and no network."""

    firmware: Firmware
    memory_mib: int
    cpus: int
    bios_uuid: str | None
    disks: tuple[MachineDisk, ...]
    """In the order in which the firmware looks for a boot loader."""


def machine_for(
    hardware: Hardware | None,
    keys: Sequence[str],
    *,
    most_cpus: int,
    firmware: Firmware | None = None,
    memory_mib: int | None = None,
    bus: DiskBus | None = None,
) -> Machine:
    """The VM with this hardware, of which nothing may be known, and disks at these places.

    What is given besides overrides what the VM has.
    """
    own = Firmware.UEFI if hardware is not None and hardware.firmware == "efi" else Firmware.BIOS
    chosen = firmware or own
    memory = min(hardware.memory_mib, MOST_MEMORY_MIB) if hardware is not None else MEMORY_MIB
    return Machine(
        firmware=chosen,
        memory_mib=memory_mib or memory,
        cpus=min(hardware.cpus if hardware is not None else 1, most_cpus),
        bios_uuid=hardware.bios_uuid if hardware is not None else None,
        disks=tuple(MachineDisk(key, bus or _bus(key, hardware, chosen)) for key in keys),
    )


def _bus(key: str, hardware: Hardware | None, firmware: Firmware) -> DiskBus:
    """What comes nearest to the controller that the guest knows; most know SATA."""
    matched = _PLACE.match(key)
    if matched is None:
        return DiskBus.SATA
    if matched[1] != "scsi":
        return DiskBus(matched[1])
    models = {one.bus: one.model for one in hardware.controllers if one.kind == "scsi"} if hardware else {}
    model = models.get(int(matched[2]), "")
    return DiskBus(model) if model in _BIOS_ONLY and firmware is Firmware.BIOS else DiskBus.SATA


@dataclass(frozen=True, slots=True)
class Uefi:
    """What a VM of UEFI has besides."""

    code: Path
    variables: Path
    """Of this VM alone."""
    start: Path
    """A folder with the script for a VM that has no boot loader at the usual place."""


def arguments(machine: Machine, *, nbd: Path, monitor: Path, kvm: bool, uefi: Uefi | None = None) -> list[str]:
    """QEMU's arguments. The disks are at the socket `nbd`; the console is standard output.

    `monitor` is the socket that takes commands (QMP); `uefi` is there for a VM that starts by it.
    """
    accelerated = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg", "-cpu", "max,la57=off"]
    flashes = ",pflash0=flash0,pflash1=flash1" if uefi is not None else ""
    words = [
        *("-nodefaults", "-no-user-config", "-sandbox", _SANDBOX),
        *("-machine", f"pc,graphics=off{flashes}"),  # boot loaders and BIOS write to the serial port, too
        *accelerated,
        *("-m", str(machine.memory_mib), "-smp", str(machine.cpus)),
        *("-nic", "none", "-display", "none", "-vga", "std"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-qmp", f"unix:{_escaped(monitor)},server=on,wait=off"),
        *("-smbios", f"type=11,value={_SERIAL_PROMPT}"),
    ]
    if machine.bios_uuid:
        words += ["-uuid", machine.bios_uuid]
    if uefi is not None:
        words += _uefi_words(uefi, len(machine.disks))
    for number, disk in enumerate(machine.disks):
        served = {"driver": "nbd", "server": {"type": "unix", "path": str(nbd)}, "export": disk.key}
        node = {"driver": "raw", "node-name": f"disk{number}", "discard": "unmap"}
        words += ["-blockdev", json.dumps({**node, "file": served})]
    for device in _devices(machine.disks):
        words += ["-device", json.dumps(device)]
    return words


def _uefi_words(uefi: Uefi, last: int) -> Iterator[str]:
    for number, file in enumerate((uefi.code, uefi.variables)):
        node = {"driver": "raw", "node-name": f"flash{number}", "read-only": number == 0}
        yield from ("-blockdev", json.dumps({**node, "file": {"driver": "file", "filename": str(file)}}))
    script = {"driver": "vvfat", "node-name": "start", "dir": str(uefi.start), "read-only": True}
    stick = {
        "driver": "usb-storage",
        "drive": "start",
        "bootindex": last,
    }  # without an index UEFI doesn't look at it
    yield from ("-blockdev", json.dumps(script), "-device", "qemu-xhci", "-device", json.dumps(stick))


def _devices(disks: Sequence[MachineDisk]) -> Iterator[dict[str, object]]:
    """Controllers, each before the disks on it."""
    used: Counter[DiskBus] = Counter()
    for number, disk in enumerate(disks):
        controller, slot = divmod(used[disk.bus], _SLOTS[disk.bus])
        used[disk.bus] += 1
        name = f"{disk.bus}{controller}"
        if slot == 0 and disk.bus in _CONTROLLERS:
            yield {"driver": _CONTROLLERS[disk.bus], "id": name}
        yield {**_place(disk.bus, name, slot, number), "drive": f"disk{number}", "bootindex": number}


def _place(bus: DiskBus, controller: str, slot: int, number: int) -> dict[str, object]:
    match bus:
        case DiskBus.PVSCSI | DiskBus.LSISAS1068:
            return {"driver": "scsi-hd", "bus": f"{controller}.0", "scsi-id": slot}
        case DiskBus.SATA:
            return {"driver": "ide-hd", "bus": f"{controller}.{slot}"}
        case DiskBus.IDE:
            return {"driver": "ide-hd", "bus": f"ide.{slot // 2}", "unit": slot % 2}
        case DiskBus.NVME:
            return {"driver": "nvme", "serial": f"disk{number}"}
        case DiskBus.VIRTIO:
            return {"driver": "virtio-blk-pci"}


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
