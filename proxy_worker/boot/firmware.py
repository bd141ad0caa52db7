"""Where this machine has UEFI for VMs, as the packages that bring it describe it.

Source: QEMU's `docs/interop/firmware.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, ValidationError

from proxy_worker.contract.errors import ConfigurationError

DESCRIPTIONS: Final = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
_MACHINE: Final = "pc-i440fx-7.2"
_UNWANTED: Final = frozenset({"requires-smm", "enrolled-keys"})
"""Firmware for Secure Boot, which a boot proof leaves out."""


class FirmwareMissingError(ConfigurationError):
    """A VM starts by UEFI, and this machine has none for it."""


class _File(BaseModel):
    filename: Path
    format: str = "raw"


class _Mapping(BaseModel):
    device: str
    executable: _File | None = None
    nvram_template: _File | None = Field(None, alias="nvram-template")


class _Target(BaseModel):
    architecture: str
    machines: list[str]


class _Description(BaseModel):
    interface_types: list[str] = Field(alias="interface-types")
    mapping: _Mapping
    targets: list[_Target]
    features: list[str] = []

    def flash(self) -> tuple[Path, Path] | None:
        """Its code and its empty variables, if they are for such VMs."""
        code, variables = self.mapping.executable, self.mapping.nvram_template
        if self.mapping.device != "flash" or code is None or variables is None:
            return None
        fits = any(
            target.architecture == "x86_64" and any(fnmatchcase(_MACHINE, machine) for machine in target.machines)
            for target in self.targets
        )
        usable = fits and "uefi" in self.interface_types and not _UNWANTED & set(self.features)
        raw = code.format == variables.format == "raw"
        return (code.filename, variables.filename) if usable and raw else None


def find_uefi(folders: tuple[Path, ...] = DESCRIPTIONS) -> tuple[Path, Path]:
    """UEFI's code, and the variables that each VM starts with a copy of. Raises `FirmwareMissingError`."""
    for path in _described(folders):
        try:
            flash = _Description.model_validate(json.loads(path.read_text())).flash()
        except (OSError, ValueError, ValidationError):
            continue  # what isn't understood is no offer
        if flash is not None and all(file.is_file() for file in flash):
            return flash
    raise FirmwareMissingError(
        "UEFI for VMs isn't installed",
        why=f"nothing in {' or '.join(map(str, folders))} describes one without Secure Boot",
        remedy="Install the package ovmf.",
    )


def _described(folders: tuple[Path, ...]) -> Iterator[Path]:
    """Descriptions in the order of their names; one of an earlier folder hides its namesakes."""
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        found.update({path.name: path for path in folder.glob("*.json")})
    for name in sorted(found):
        yield found[name]
