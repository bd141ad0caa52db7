"""What the disks of a VM consist of: partitions, logical volumes, disks without a partition table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy_worker.guest_files.appliance import Appliance, ApplianceCommandError

_SEVERAL_DISKS: Final = ("lvs", "list-md-devices")
"""The commands that list volumes which may lie on several disks."""
_ENCRYPTED: Final = frozenset({"crypto_LUKS", "BitLocker"})
_MEMBERS: Final = {"LVM2_member": "LVM", "linux_raid_member": "a RAID", "zfs_member": "ZFS"}
_NO_FILES: Final = {"": "its filesystem is unknown", "swap": "it is swap space"}


@dataclass(frozen=True, slots=True)
class Volume:
    """A part of a guest's disks that may hold a filesystem."""

    name: str
    """`scsi0:0/1` is the first partition of that disk, `scsi0:0` a disk without partitions, `vg/root` LVM's."""
    device: str
    """As the appliance calls it; empty where the disks that are there don't make it up."""
    filesystem: str
    """As blkid(8) calls it, e.g. `ext4`, `xfs`, `ntfs`; empty where it is unknown."""
    size_bytes: int
    label: str

    @property
    def problem(self) -> str | None:
        """Why no files can be read from it; None: they can."""
        if not self.device:
            return "a part of it is on a disk that isn't among these"
        if self.filesystem in _ENCRYPTED:
            return f"it is encrypted ({self.filesystem.removeprefix('crypto_')})"
        if self.filesystem in _MEMBERS:
            return f"it is a part of {_MEMBERS[self.filesystem]}, whose volumes have names of their own"
        return _NO_FILES.get(self.filesystem)


def find_volumes(appliance: Appliance, disk_keys: Sequence[str]) -> tuple[Volume, ...]:
    """The volumes of an appliance's disks, which were given to it in the order of these keys."""
    keys = dict(zip(_lines(appliance, "list-devices"), disk_keys, strict=True))
    partitions = _lines(appliance, "list-partitions")
    plain = [device for device in keys if not any(_disk_of(one) == device for one in partitions)]
    devices = [*sorted(plain + partitions), *(one for word in _SEVERAL_DISKS for one in _lines(appliance, word))]
    return tuple(_volume(appliance, device, _name(device, keys)) for device in devices)


def _volume(appliance: Appliance, device: str, name: str) -> Volume:
    """Asked for one by one, since each takes a while where the appliance is emulated."""
    try:
        filesystem = _printed(appliance, "vfs-type", device)
    except ApplianceCommandError as error:
        if error.absent:
            return Volume(name, "", "", 0, "")
        raise
    volume = Volume(name, device, filesystem, int(_printed(appliance, "blockdev-getsize64", device)), "")
    return volume if volume.problem else replace(volume, label=_printed(appliance, "vfs-label", device))


def _name(device: str, keys: dict[str, str]) -> str:
    disk = _disk_of(device)
    if disk in keys:
        number = device.removeprefix(disk)
        return f"{keys[disk]}/{number}" if number else keys[disk]
    return device.removeprefix("/dev/")


def _disk_of(device: str) -> str:
    return device.rstrip("0123456789")


def _lines(appliance: Appliance, word: str) -> list[str]:
    return _printed(appliance, word).split()


def _printed(appliance: Appliance, *words: str) -> str:
    return appliance.run(*words).decode(errors="replace").strip()


def listed(volumes: Sequence[Volume]) -> str:
    """The names of volumes, for people."""
    return ", ".join(_named(volumes)) or "none"


def _named(volumes: Sequence[Volume]) -> Iterator[str]:
    for volume in volumes:
        yield f"{volume.name} ({volume.filesystem or 'unknown'})"
