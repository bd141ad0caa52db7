"""The VMX of a replica: its original's, with names, networks and disks as they are at the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy_worker.transport.dictionary import is_blank
from proxy_worker.transport.vmx import parse_vmx, read_values

_NETWORK: Final = re.compile(r"ethernet\d{1,2}\.networkname")
_OF_THE_PLACE: Final = (
    "sched.swap.derivedname",
    "migrate.hostlog",
    "vmxstats.filename",
    "uuid.location",
    "vc.uuid",
)
"""What an original's VMX says of where it lies, and what made it."""


@dataclass(frozen=True)
class Changes:
    """What is otherwise at the target."""

    name: str
    uuid: str | None
    """As 8-4-4-4-12 digits; None: it stays."""
    networks: Mapping[str, str]
    disks: Mapping[str, str]
    """The files of its disks by their places, as in `scsi0:0`."""
    nvram: str | None
    """The file of its firmware's settings, if there is one."""


def rewritten(data: bytes, path: str, changes: Changes) -> tuple[bytes, tuple[str, ...]]:
    """A VMX with changes, in UTF-8, and what of the original's the replica lacks. Raises VmxDamagedError."""
    values = read_values(data, path)
    original = parse_vmx(data, path)
    warnings = []
    for key in _OF_THE_PLACE:
        values.pop(key, None)
    values[".encoding"] = "UTF-8"
    values["displayname"] = changes.name
    if changes.uuid is not None:
        values["uuid.bios"] = _as_vmx(changes.uuid)
    for key, network in list(values.items()):
        if _NETWORK.fullmatch(key):
            values[key] = changes.networks.get(network, network)
    for disk in original.disks:
        if disk.key in changes.disks:
            values[f"{disk.key}.filename"] = changes.disks[disk.key]
        else:
            del values[f"{disk.key}.filename"]
            values[f"{disk.key}.present"] = "FALSE"
            warnings.append(f"disk {disk.key} isn't replicated, and the replica doesn't have it")
    if changes.nvram is not None:
        values["nvram"] = changes.nvram
    elif values.pop("nvram", None):
        warnings.append("the settings of its firmware weren't sent; the replica begins with new ones")
    lines = [f'{key} = "{_escaped(value)}"' for key, value in values.items() if not is_blank(key)]
    return ("\n".join(lines) + "\n").encode(), tuple(warnings)


def _as_vmx(uuid: str) -> str:
    digits = uuid.replace("-", "")
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    return f"{' '.join(pairs[:8])}-{' '.join(pairs[8:])}"


def _escaped(value: str) -> str:
    return "".join(f"|{ord(one):02X}" if one in '"|#' or ord(one) < ord(" ") else one for one in value)
