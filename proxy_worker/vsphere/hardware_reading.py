"""What a VM is made of, as vCenter has it: for making another one like it, where no VMX can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.vsphere.devices import controllers
from proxy_worker.vsphere.guests import OTHER
from proxy_worker.vsphere.hardware import Controller, Hardware, NetworkCard
from proxy_worker.vsphere.inventory import unescaped
from proxy_worker.vsphere.networks import Network, read_networks
from proxy_worker.vsphere.new_machine import CARDS, SCSI
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session

_PATHS: Final = (
    "name",
    "config.guestId",
    "config.version",
    "config.firmware",
    "config.annotation",
    "config.uuid",
    "config.bootOptions",
    "config.flags.diskUuidEnabled",
    "config.hardware.numCPU",
    "config.hardware.numCoresPerSocket",
    "config.hardware.memoryMB",
    "config.hardware.device",
)
_FIRST_CARD: Final = 4000
_device = vim.vm.device


def read_hardware(session: Session, vm: str) -> Hardware:
    """What the VM with the managed object id `vm` is made of, its disks apart, in two calls.

    Raises `VsphereObjectGoneError`, and the named errors of `session` and `faults`.
    """
    found = session.call(
        f"reading what VM {vm} of vCenter {session.endpoint.name} is made of",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], _PATHS)[0],
        repeatable=True,
    )
    devices = found["config.hardware.device"] or ()
    named = {network.portgroup_key: network for network in read_networks(session) if network.portgroup_key}
    version = str(found["config.version"] or "").removeprefix("vmx-")
    return Hardware(
        name=unescaped(found["name"] or vm),
        guest_os=found["config.guestId"] or OTHER,
        cpus=found["config.hardware.numCPU"] or 1,
        cores_per_socket=found["config.hardware.numCoresPerSocket"] or 1,
        memory_mib=found["config.hardware.memoryMB"] or 32,
        firmware=found["config.firmware"] or "bios",
        secure_boot=bool(getattr(found["config.bootOptions"], "efiSecureBootEnabled", False)),
        hardware_version=int(version) if version.isdecimal() else None,
        bios_uuid=found["config.uuid"],
        annotation=found["config.annotation"] or "",
        shows_disk_uuids=bool(found["config.flags.diskUuidEnabled"]),
        nvram=f"{found['name']}.nvram",
        controllers=tuple(_controllers(devices)),
        cards=tuple(_cards(devices, named)),
        has_vtpm=any(isinstance(device, _device.VirtualTPM) for device in devices),
    )


def _controllers(devices: Iterable[Any]) -> list[Controller]:
    kinds = controllers(devices)
    found = []
    for device in devices:
        kind, bus = kinds.get(device.key, ("", 0))
        if kind in {"scsi", "sata", "nvme"}:
            model = next((name for name, cls in SCSI.items() if isinstance(device, cls)), "")
            found.append(Controller(kind, bus, model))
    return sorted(found, key=lambda controller: (controller.kind, controller.bus))


def _cards(devices: Iterable[Any], named: Mapping[str, Network]) -> list[NetworkCard]:
    cards = [device for device in devices if isinstance(device, _device.VirtualEthernetCard)]
    return [
        NetworkCard(
            number=card.key - _FIRST_CARD,
            model=next((name for name, cls in CARDS.items() if isinstance(card, cls)), ""),
            network=_network(card.backing, named),
            mac=card.macAddress or None,
            mac_is_static=card.addressType == "manual",
            connected=card.connectable is None or bool(card.connectable.startConnected),
        )
        for card in sorted(cards, key=lambda card: card.key)
    ]


def _network(backing: Any, named: Mapping[str, Network]) -> str | None:
    """What a card hangs on; None where that has no name here."""
    if isinstance(backing, _device.VirtualEthernetCard.NetworkBackingInfo):
        return unescaped(backing.deviceName)
    if isinstance(backing, _device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        network = named.get(backing.port.portgroupKey)
        return network.name if network is not None else None
    return None
