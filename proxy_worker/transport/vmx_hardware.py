"""A VMX's virtual hardware: what making the VM again takes.

Source: the files that ESXi writes. What a VMX doesn't say is what ESXi assumes then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from proxy_worker.transport.dictionary import is_true
from proxy_worker.transport.vmx import VmxDamagedError, normalised_uuid, read_values
from proxy_worker.vsphere.hardware import Controller, Hardware, NetworkCard

_CONTROLLER: Final = re.compile(r"(scsi|sata|nvme)(\d{1,2})\.present")
_NETWORK_CARD: Final = re.compile(r"ethernet(\d{1,2})\.present")
_DEFAULT_SCSI: Final = "lsilogic"
_DEFAULT_CARD: Final = "e1000"


def parse_hardware(data: bytes, path: str) -> Hardware:
    """Read the VMX at `path`. Raises VmxDamagedError."""
    values = read_values(data, path)
    name = values.get("displayname", "").strip()
    if not name:
        raise VmxDamagedError(f"{path} can't be read as a VMX", why="displayName is missing, so it is truncated")
    uuid = values.get("uuid.bios")
    return Hardware(
        name=name,
        guest_os=values.get("guestos", "other"),
        cpus=_number(values, "numvcpus", 1, path),
        cores_per_socket=_number(values, "cpuid.corespersocket", 1, path),
        memory_mib=_number(values, "memsize", 32, path),
        firmware=values.get("firmware", "bios").lower(),
        secure_boot=is_true(values.get("uefi.secureboot.enabled", "FALSE")),
        hardware_version=_number(values, "virtualhw.version", 0, path) or None,
        bios_uuid=normalised_uuid(uuid, path) if uuid else None,
        annotation=values.get("annotation", ""),
        shows_disk_uuids=is_true(values.get("disk.enableuuid", "FALSE")),
        nvram=values.get("nvram") or None,
        controllers=tuple(_controllers(values)),
        cards=tuple(_cards(values)),
        has_vtpm=is_true(values.get("vtpm.present", "FALSE")),
    )


def _number(values: Mapping[str, str], key: str, otherwise: int, path: str) -> int:
    text = values.get(key)
    if not text:
        return otherwise
    if not text.strip().isdecimal():
        raise VmxDamagedError(f"{path} can't be read as a VMX", why=f"its {key} {text[:60]!r} is no number")
    return int(text)


def _controllers(values: Mapping[str, str]) -> list[Controller]:
    found = []
    for key in values:
        matched = _CONTROLLER.fullmatch(key)
        if matched is None or not is_true(values[key]):
            continue
        kind, bus = matched[1], int(matched[2])
        model = values.get(f"{kind}{bus}.virtualdev", _DEFAULT_SCSI).lower() if kind == "scsi" else ""
        found.append(Controller(kind, bus, model))
    return sorted(found, key=lambda controller: (controller.kind, controller.bus))


def _cards(values: Mapping[str, str]) -> list[NetworkCard]:
    found = []
    for key in values:
        matched = _NETWORK_CARD.fullmatch(key)
        if matched is None or not is_true(values[key]):
            continue
        prefix = f"ethernet{matched[1]}"
        is_static = values.get(f"{prefix}.addresstype", "generated").lower() == "static"
        generated = values.get(f"{prefix}.generatedaddress")
        found.append(
            NetworkCard(
                number=int(matched[1]),
                model=values.get(f"{prefix}.virtualdev", _DEFAULT_CARD).lower(),
                network=values.get(f"{prefix}.networkname") or None,
                mac=(values.get(f"{prefix}.address") if is_static else generated) or None,
                mac_is_static=is_static,
                connected=is_true(values.get(f"{prefix}.startconnected", "TRUE")),
            )
        )
    return sorted(found, key=lambda card: card.number)
