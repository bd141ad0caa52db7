"""A small disk that starts Linux by itself, from a BIOS and by UEFI: Debian's GRUB, kernel and BusyBox.

It has a FAT file system with boot loader and kernel, and an ext4 file system with everything else. The kernel has
no initial RAM disk, so it must find the disk with what is built in: the disk is for NVMe. UEFI's boot loader is
where Debian's installer puts it, which a VM finds by its NVRAM only.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

KEY: Final = "nvme0:0"
PROMPT: Final = "web01 login:"
_SECTOR: Final = 512
_FIRST: Final = 1 << 20
"""Where the first partition begins, as usual."""
_BOOT_BYTES: Final = 20 << 20
_ROOT_BYTES: Final = 6 << 20
_GRUB: Final = """\
search --no-floppy --label --set=root BOOT
linux /vmlinuz root=/dev/nvme0n1p2 rootfstype=ext4 ro console=ttyS0 mitigations=off tsc=reliable no_timer_check
boot
"""
_INITTAB: Final = """\
::sysinit:/bin/busybox sh /etc/start
ttyS0::respawn:/bin/busybox getty -L 115200 ttyS0 vt100
"""
_START: Final = """\
/bin/busybox mount -t proc proc /proc
echo 1 >/proc/sys/kernel/printk
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox hostname web01
/bin/busybox mount -o remount,rw /
echo "written: $(/bin/busybox cat /written)" >/dev/console
echo by-the-guest >/written
/bin/busybox sync
echo 3 >/proc/sys/vm/drop_caches
echo "written: $(/bin/busybox cat /written)" >/dev/console
echo "networks: $(/bin/busybox ls /sys/class/net)" >/dev/console
echo "asked: $(/bin/busybox strings /sys/firmware/dmi/entries/11-0/raw)" >/dev/console
"""


def make_linux_disk(folder: Path) -> bytes:
    """The disk's content; `folder` is for what it is made of."""
    disk = bytearray(_FIRST + _BOOT_BYTES + _ROOT_BYTES)
    disk[:440] = Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440]
    boot_sector = _FIRST // _SECTOR
    root_sector = boot_sector + _BOOT_BYTES // _SECTOR
    disk[446:462] = _partition(0xEF, boot_sector, _BOOT_BYTES // _SECTOR)
    disk[462:478] = _partition(0x83, root_sector, _ROOT_BYTES // _SECTOR)
    disk[510:512] = b"\x55\xaa"
    for_bios = _grub(folder, "i386-pc", "biosdisk").read_bytes()
    disk[_SECTOR : _SECTOR + len(for_bios)] = for_bios
    disk[_FIRST : _FIRST + _BOOT_BYTES] = _boot_partition(folder).read_bytes()
    disk[_FIRST + _BOOT_BYTES :] = _root_partition(folder).read_bytes()
    return bytes(disk)


def _partition(kind: int, begin: int, length: int) -> bytes:
    """An entry of the partition table, with nothing in the fields that nobody has read for thirty years."""
    return struct.pack(
        "<B3sB3sII", 0x80 if kind == 0xEF else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", begin, length
    )


def _grub(folder: Path, platform: str, *modules: str) -> Path:
    """GRUB for a platform, which starts the kernel without asking."""
    settings = folder / "grub.cfg"
    settings.write_text(_GRUB)
    image = folder / platform
    wanted = ("part_msdos", "fat", "linux", "normal", "search", "search_label", *modules)
    _run("grub-mkimage", "-O", platform, "-p", "/", "-c", str(settings), "-o", str(image), *wanted)
    return image


def _boot_partition(folder: Path) -> Path:
    image = folder / "boot.fat"
    with image.open("wb") as file:
        file.truncate(_BOOT_BYTES)
    kernel = max(Path("/boot").glob("vmlinuz-*-cloud-amd64"), default=None)
    assert kernel is not None, "there is no kernel; ops/system-packages.txt says where it comes from"
    _run("mformat", "-i", str(image), "-v", "BOOT", "::")
    _run("mmd", "-i", str(image), "::EFI", "::EFI/debian")
    _run("mcopy", "-i", str(image), str(kernel), "::vmlinuz")
    _run("mcopy", "-i", str(image), str(_grub(folder, "x86_64-efi")), "::EFI/debian/grubx64.efi")
    return image


def _root_partition(folder: Path) -> Path:
    root = folder / "root"
    for name in ("bin", "dev", "etc", "proc", "sbin", "sys"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox, "BusyBox isn't installed; ops/system-packages.txt says where it comes from"
    shutil.copy(busybox, root / "bin")
    (root / "bin/sh").symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/inittab").write_text(_INITTAB)
    (root / "etc/start").write_text(_START)
    (root / "written").write_text("before the backup\n")
    image = folder / "root.ext4"
    with image.open("wb") as file:
        file.truncate(_ROOT_BYTES)
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image))
    return image


def _run(tool: str, *words: str) -> None:
    found = shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{tool} isn't installed; ops/system-packages.txt says where it comes from"
    subprocess.run([found, *words], check=True, capture_output=True)
