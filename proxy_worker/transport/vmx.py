"""VMX files: what a VM is called and which disks it has.

Source: the files that ESXi and VMware's hosted products write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import SourceError
from proxy_worker.transport.dictionary import decode, is_blank, is_true, parse_line

VMX_LIMIT_BYTES: Final = 1 << 20
_LONGEST_NAME: Final = 255
_DEVICE = re.compile(r"((?:scsi|sata|ide|nvme)(\d{1,3})):(\d{1,4})\.filename")
_PASSED_THROUGH: Final = ("passthru", "raw")
_UUID_DIGITS: Final = 32


class VmxDamagedError(SourceError):
    """A VMX is truncated, or isn't a VMX."""

    retryable = False


@dataclass(frozen=True)
class VmxDisk:
    """A virtual disk of a VM."""

    key: str
    """Its place, e.g. `scsi0:0`."""
    file_name: str
    """As the VMX has it: relative to its folder, absolute, or an NBD URI."""


@dataclass(frozen=True)
class Vmx:
    """What a VMX says that backing the VM up needs."""

    name: str
    uuid: str | None
    """`uuid.bios` as 8-4-4-4-12 lower-case digits; None when it has none yet."""
    disks: tuple[VmxDisk, ...]
    nvram: str | None
    """The file of the firmware's settings."""


def parse_vmx(data: bytes, path: str) -> Vmx:
    """Read the VMX at `path`. Raises VmxDamagedError."""
    values = read_values(data, path)
    name = "".join(character for character in values.get("displayname", "") if character.isprintable()).strip()
    if not name:
        raise _damaged(path, "displayName is missing, so it is truncated")
    return Vmx(
        name=name[:_LONGEST_NAME],
        uuid=normalised_uuid(values["uuid.bios"], path) if values.get("uuid.bios") else None,
        disks=tuple(_disks(values, path)),
        nvram=values.get("nvram") or None,
    )


def normalised_uuid(text: str, path: str) -> str:
    """A UUID as VMX files write it (`56 4d … 4a-0b …`) in the usual form. Raises VmxDamagedError."""
    digits = re.sub(r"[\s-]", "", text).lower()
    if len(digits) != _UUID_DIGITS or re.fullmatch(r"[0-9a-f]*", digits) is None:
        raise _damaged(path, f"its uuid.bios {text[:60]!r} isn't a UUID")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def read_values(data: bytes, path: str) -> dict[str, str]:
    """All settings of the VMX at `path`, keys in lower case. Raises VmxDamagedError."""
    try:
        text = decode(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if is_blank(line):
            continue
        pair = parse_line(line)
        if pair is None:
            raise _damaged(path, f'line {number} isn\'t of the form key = "value": {line.strip()[:80]!r}')
        values[pair[0]] = pair[1]
    return values


def _disks(values: dict[str, str], path: str) -> list[VmxDisk]:
    """The disks, in the order of their places."""
    found: list[tuple[tuple[str, int, int], VmxDisk]] = []
    devices = {key.partition(".")[0] for key in values if ":" in key}
    for device in devices:
        if _is_absent(values, device):
            continue
        matched = _DEVICE.fullmatch(f"{device}.filename")
        kind = values.get(f"{device}.devicetype", "disk").lower()
        if matched is None or "cdrom" in kind:
            continue
        if any(word in kind for word in _PASSED_THROUGH):
            raise _damaged(path, f"{device} is passed through to the VM ({kind}), so that it can't be backed up")
        file_name = values.get(f"{device}.filename", "")
        if not file_name and f"{device}.present" not in values:
            continue  # a setting of an empty place
        if not file_name:
            raise _damaged(path, f"{device} is present, but its fileName is missing, so it is truncated")
        bus = matched[1].removesuffix(matched[2])
        found.append(((bus, int(matched[2]), int(matched[3])), VmxDisk(device, file_name)))
    order = {"scsi": 0, "sata": 1, "nvme": 2, "ide": 3}
    return [disk for _, disk in sorted(found, key=lambda item: (order[item[0][0]], *item[0][1:]))]


def _is_absent(values: dict[str, str], device: str) -> bool:
    """Whether a device, or the controller it is on, is switched off."""
    places = (device, device.partition(":")[0])
    return any(not is_true(values.get(f"{place}.present", "TRUE")) for place in places)


def _damaged(path: str, why: str) -> VmxDamagedError:
    return VmxDamagedError(f"{path} can't be read as a VMX", why=why)
