"""The disks of the machine that this proxy runs on, as block devices that are found by their uuid.

vSphere gives a disk's uuid to the guest as its SCSI serial number if the VM has `disk.EnableUUID`; udev and the
kernel show it as the device's WWN.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import SourceError

BY_ID: Final = Path("/dev/disk/by-id")
_POLL_S: Final = 0.05
_OF_OTHERS: Final = ("dm-", "md-", "lvm-")
"""Links to what is made of disks: a multipath map has its disks' WWN."""


class GuestDiskError(SourceError):
    """A disk that was attached to this proxy's VM can't be used in the guest."""


class GuestDiskMissingError(GuestDiskError):
    """A disk was attached to this proxy's VM, and the guest doesn't show it."""


class GuestDiskAmbiguousError(GuestDiskError):
    """Several devices of the guest have a disk's uuid, so that none can be trusted to be the disk."""


@dataclass(frozen=True)
class GuestDisks:
    """Block devices of this machine."""

    folder: Path = BY_ID
    """Links to devices whose names end with the uuid, or the WWN, of their disk."""
    blocks: Path = Path("/sys/block")
    scsi_hosts: Path = Path("/sys/class/scsi_host")
    rescan_after_s: float = 5.0
    """How long a controller may take to notice a new disk by itself."""

    def find(self, uuid: str) -> tuple[Path, ...]:
        """Every device with this uuid, as `/dev/…`."""
        digits = _digits(uuid)
        return tuple(sorted(self._linked(digits) | self._known_to_kernel(digits)))

    def wait_for(self, uuid: str, size_bytes: int, *, timeout_s: float) -> Path:
        """The device of a disk that was just attached, once it shows all its `size_bytes`.

        Raises GuestDiskMissingError, GuestDiskAmbiguousError or GuestDiskError.
        """
        start = time.monotonic()
        rescanned = False
        why = f"no block device with uuid {uuid} appeared in {timeout_s:g} s"
        while True:
            found = self.find(uuid)
            if len(found) > 1:
                raise GuestDiskAmbiguousError(
                    f"the disk with uuid {uuid} can't be told apart in the guest",
                    why=f"{', '.join(map(str, found))} all have it",
                    remedy="Give the copy of the disk a uuid of its own (vmkfstools -J setuuid).",
                )
            if found:
                size = _size_bytes(found[0])
                if size == size_bytes:
                    return found[0]
                why = f"{found[0]} has {size} bytes after {timeout_s:g} s, the disk {size_bytes}"
            waited_s = time.monotonic() - start
            if waited_s > timeout_s:
                raise GuestDiskMissingError(
                    f"the disk with uuid {uuid} was attached, but can't be used in the guest",
                    why=why,
                    remedy="Look at the guest's kernel log; is its SCSI controller a paravirtual one?",
                )
            if waited_s > self.rescan_after_s and not rescanned:
                rescanned = True
                self._rescan()
            time.sleep(_POLL_S)

    def wait_until_gone(self, uuid: str, *, timeout_s: float) -> bool:
        """Whether no device has this uuid, or none any more in time: the guest may be slow to drop one."""
        deadline = time.monotonic() + timeout_s
        while self.find(uuid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def forget(self, device: Path, uuid: str) -> None:
        """Let the kernel drop a SCSI device that is about to be detached, as far as it can."""
        delete = self.blocks / device.name / "device/delete"
        if delete.exists() and self.find(uuid) == (device,):
            with contextlib.suppress(OSError):
                delete.write_text("1")

    def _linked(self, digits: str) -> set[Path]:
        found = set()
        with contextlib.suppress(FileNotFoundError):
            for link in self.folder.iterdir():
                if _digits(link.name).endswith(digits) and not link.name.startswith(_OF_OTHERS):
                    with contextlib.suppress(OSError):  # gone meanwhile
                        found.add(link.resolve(strict=True))
        return found

    def _known_to_kernel(self, digits: str) -> set[Path]:
        found = set()
        for wwid in self.blocks.glob("*/device/wwid"):
            with contextlib.suppress(OSError):
                if _digits(wwid.read_text().strip()).endswith(digits):
                    found.add(Path("/dev") / wwid.parent.parent.name)
        return {device for device in found if device.exists()}

    def _rescan(self) -> None:
        for scan in self.scsi_hosts.glob("*/scan"):
            with contextlib.suppress(OSError):
                scan.write_text("- - -")


def _digits(text: str) -> str:
    return text.replace("-", "").replace(" ", "").lower()


def _size_bytes(device: Path) -> int:
    """0 for a device that is gone again. Raises GuestDiskError."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM}:
            return 0
        raise GuestDiskError(
            f"can't open {device}, the device of a disk that was attached",
            why=error.strerror or str(error),
            remedy="The proxy has to run as root, or in the group that may read disks.",
        ) from error
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise GuestDiskError(f"{device} is not the device of a disk", why="it is no block device")
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)
