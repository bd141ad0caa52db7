"""What a VM is made of, its disks apart: enough to make it again. No pyvmomi here: it is cheap to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Controller:
    """A disk controller other than IDE, which every VM has."""

    kind: str
    """`scsi`, `sata` or `nvme`."""
    bus: int
    model: str
    """`lsilogic`, `lsisas1068`, `pvscsi`, `buslogic`; empty for sata and nvme."""


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """A network card."""

    number: int
    model: str
    """`vmxnet3`, `e1000`, `e1000e`, …"""
    network: str | None
    """The network's name; None on a distributed switch, of which a VMX has only ids."""
    mac: str | None
    """Its address, generated or set; None before the VM was first powered on."""
    mac_is_static: bool
    connected: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a VM is made of, its disks apart."""

    name: str
    guest_os: str
    """As a VMX has it, e.g. `ubuntu-64`."""
    cpus: int
    cores_per_socket: int
    memory_mib: int
    firmware: str
    """`bios` or `efi`."""
    secure_boot: bool
    hardware_version: int | None
    bios_uuid: str | None
    annotation: str
    shows_disk_uuids: bool
    nvram: str | None
    controllers: tuple[Controller, ...]
    cards: tuple[NetworkCard, ...]
    has_vtpm: bool
