"""A restore point's share as a folder keeps it: what hosts see in `files`, what was written of disks in `marks`.

Each disk is a descriptor, `scsi0-0.vmdk`, and the disk itself, `scsi0-0-flat.vmdk`: a sparse file that holds what
was written. Both are there as soon as the folder is; opening it again finds all that was made durable.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import TargetError
from proxy_worker.export.disk import Disk
from proxy_worker.export.durable import DurableOverlay, make_files
from proxy_worker.export.nfs.share import Share, make_durable, write_durably

log = logging.getLogger(__name__)

_FILES: Final = "files"
_MARKS: Final = "marks"
_SECTOR: Final = 512
_DESCRIPTOR: Final = """\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {sectors} VMFS "{flat}"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.thinProvisioned = "1"
ddb.virtualHWVersion = "13"
"""


class ShareFolderError(TargetError):
    """What is served can't be kept."""


def descriptor_name(disk_key: str) -> str:
    """The file of a disk that a VM names: `scsi0-0.vmdk`."""
    return f"{disk_key.replace(':', '-')}.vmdk"


def lay_out(folder: Path, sizes: Mapping[str, int]) -> None:
    """Durably put what is served of disks of these sizes, by key, in a folder. Raises `ShareFolderError`."""
    try:
        for name in (_FILES, _MARKS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for key, size in sizes.items():
            descriptor = folder / _FILES / descriptor_name(key)
            flat = _flat(descriptor)
            make_files(size, flat, folder / _MARKS / flat.name)
            sectors = -(-size // _SECTOR)
            text = _DESCRIPTOR.format(sectors=sectors, flat=flat.name, cylinders=sectors // (255 * 63))
            write_durably(descriptor, text)
        for name in (_FILES, _MARKS, "."):
            make_durable(folder / name)
    except OSError as error:
        raise ShareFolderError(f"folder {folder}", why=error.strerror or str(error)) from error


def open_share(folder: Path, token: bytes, disks: Mapping[str, Disk]) -> Share:
    """What the folder keeps, on top of the disks, but for those that a host has removed since.

    Raises `OverlayBusyError` while another process serves it, `OverlayError`, `OverlayDamagedError`.
    """
    opened = {}
    with ExitStack() as failing:
        for key, disk in disks.items():
            flat = _flat(folder / _FILES / descriptor_name(key))
            if not flat.exists():
                log.info("disk %s was removed by a host", flat)
                continue
            opened[flat.name] = failing.enter_context(DurableOverlay(disk, flat, folder / _MARKS / flat.name))
        failing.pop_all()
    return Share(token, folder / _FILES, opened)


def written_bytes(folder: Path) -> int:
    """How much room a folder takes."""
    return sum(file.stat().st_blocks * 512 for file in (folder / _FILES).glob("*") if file.is_file())


def _flat(descriptor: Path) -> Path:
    return descriptor.with_name(f"{descriptor.stem}-flat.vmdk")
