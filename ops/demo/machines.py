"""The demo's virtual machines: VMX files and flat VMDKs with real filesystems of real files.

Everything is made as an ordinary user: `mke2fs -d` fills a filesystem from a folder, `debugfs` changes it the
way its guest would, `e2fsck` proves that it is sound.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sysconfig
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from ops.demo.errors import DemoError

MIB = 1 << 20
_SECTOR = 512
_SMALLEST, _LARGEST = 64 << 10, 16 * MIB
"""Files outside this range are left out: tens of thousands of small ones take longer to make than to back up."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Disk:
    """A virtual disk to make: a filesystem with `content_mib` of files, or raw blocks in a sparse file."""

    key: str
    size_mib: int
    content_mib: int
    filesystem: bool = True


@dataclass(frozen=True)
class Machine:
    """A virtual machine to make, and the datastore that it lies in."""

    name: str
    datastore: str
    disks: tuple[Disk, ...]


MACHINES = (
    Machine("web01", "primary-ds", (Disk("scsi0:0", 320, 112), Disk("scsi0:1", 1280, 224))),
    Machine("db01", "primary-ds", (Disk("scsi0:0", 256, 64), Disk("scsi0:1", 2048, 64, filesystem=False))),
    Machine("branch01", "remote-ds", (Disk("scsi0:0", 512, 128),)),
)


def make_machines(machines: Sequence[Machine], datastores: Path, scratch: Path) -> None:
    """Make every machine's folder in its datastore's folder below `datastores`."""
    files = files_of_this_machine()
    for machine in machines:
        folder = datastores / machine.datastore / machine.name
        folder.mkdir(parents=True)
        (folder / f"{machine.name}.vmx").write_text(_vmx(machine))
        for disk in machine.disks:
            name = descriptor_path(folder, disk).stem
            descriptor_path(folder, disk).write_text(_descriptor(name, disk))
            flat = flat_path(folder, disk)
            with flat.open("wb") as file:
                file.truncate(disk.size_mib * MIB)
            fill(flat, disk, files, scratch / name)


def fill(flat: Path, disk: Disk, files: Iterator[Path], staging: Path) -> None:
    """Give a sparse file of the disk's size its content, by way of the folder `staging`."""
    if disk.filesystem:
        _fill_with_files(flat, disk, files, staging)
    else:
        _fill_with_records(flat, disk)


def descriptor_path(folder: Path, disk: Disk) -> Path:
    """The disk's VMDK descriptor in its machine's folder."""
    number = disk.key.partition(":")[2]
    return folder / f"{folder.name}{'' if number == '0' else '_' + number}.vmdk"


def flat_path(folder: Path, disk: Disk) -> Path:
    """The file that holds the disk's bytes."""
    return folder / f"{descriptor_path(folder, disk).stem}-flat.vmdk"


def change(machine: Machine, disk: Disk, datastores: Path, scratch: Path, *, day: int = 1) -> str:
    """Let a day pass on one disk, and say in a few words what changed; every `day` writes something else."""
    return change_disk(flat_path(datastores / machine.datastore / machine.name, disk), disk, scratch, day=day)


def change_disk(flat: Path, disk: Disk, scratch: Path, *, day: int = 1) -> str:
    """Let a day pass on the disk whose bytes are in `flat`; see `change`."""
    if disk.filesystem:
        return _change_files(flat, scratch, day)
    return _change_records(flat, disk, day)


def files_of_this_machine() -> Iterator[Path]:
    """Real files to fill disks with, again and again: Python's own library and the installed packages."""
    paths = sysconfig.get_paths()
    return cycle(file for folder in (paths["platlib"], paths["stdlib"]) for file in _files_of(folder))


def _files_of(folder: str) -> Iterator[Path]:
    """Those of the right size below a folder, in order, and no further than they are asked for."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_of(entry.path)
        elif entry.is_file(follow_symlinks=False) and _SMALLEST <= entry.stat().st_size <= _LARGEST:
            yield Path(entry.path)


def _fill_with_files(flat: Path, disk: Disk, files: Iterator[Path], staging: Path) -> None:
    """Make an ext4 filesystem in `flat` with real files."""
    left = disk.content_mib * MIB
    number = 0
    while left > 0:
        source = next(files)
        target = staging / f"{number // 500:03d}" / f"{number:05d}-{source.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        left -= source.stat().st_size
        number += 1
    (staging / "etc").mkdir()
    (staging / "etc/hostname").write_text(f"{flat.parent.name}\n")
    run_tool(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(staging), str(flat)])
    shutil.rmtree(staging)


def _change_files(flat: Path, scratch: Path, day: int) -> str:
    """Remove and add files inside the filesystem without mounting it."""
    scratch.mkdir(parents=True, exist_ok=True)
    report = scratch / "report.bin"
    report.write_bytes(random.Random(f"{flat} {day}").randbytes(3 * MIB))
    log = scratch / "access.log"
    log.write_text("".join(f"{n:08d} GET /index.html 200\n" for n in range(60_000)))
    commands = scratch / "commands"
    commands.write_text(
        f"rm /{'etc/hostname' if day == 1 else f'day{day - 1}/access.log'}\n"
        f"mkdir /day{day}\nwrite {report} /day{day}/report.bin\nwrite {log} /day{day}/access.log\nquit\n"
    )
    run_tool(["debugfs", "-w", "-f", str(commands), str(flat)])
    run_tool(["e2fsck", "-f", "-n", str(flat)])
    return "one file removed, two written (debugfs), the filesystem still clean (e2fsck)"


def _fill_with_records(flat: Path, disk: Disk) -> None:
    """Write pieces of records here and there, as a database on a raw disk does; the rest stays a hole."""
    with flat.open("r+b") as file:
        for piece in range(disk.content_mib):
            file.seek(piece * (disk.size_mib // disk.content_mib) * MIB)
            file.write(_records(flat, piece, MIB))


def _change_records(flat: Path, disk: Disk, day: int) -> str:
    """Update pages of 8 KiB in every sixth piece, and write one new piece into a hole."""
    stride = disk.size_mib // disk.content_mib * MIB
    pieces = range(0, disk.content_mib, 6)
    with flat.open("r+b") as file:
        for piece in pieces:
            file.seek(piece * stride + 64 * 8192)
            file.write(_records(flat, piece + day * 1_000_000, 8192))
        file.seek(disk.size_mib * MIB - 2 * MIB)
        file.write(_records(flat, day * 1_000_000 - 1, MIB))
    return f"{len(pieces)} pages of 8 KiB rewritten, 1 MiB written into a hole"


def _records(flat: Path, number: int, length: int) -> bytes:
    """Rows of text with incompressible payloads, half and half; others for every disk and `number`."""
    source = random.Random(f"{flat.name} {number}")
    row = (b"table=%-20s id=%012d state=open " % (flat.stem[:20].encode(), number)).ljust(64, b".")
    payloads = source.randbytes(length // 2)
    rows = b"".join(row + payloads[at : at + 64] for at in range(0, len(payloads), 64))
    return rows.ljust(length, b"\0")


def run_tool(command: Sequence[str]) -> None:
    """Run one of e2fsprogs' commands; raises `DemoError` with what it said when it fails."""
    found = shutil.which(command[0], path=_SYSTEM_PATH)
    if found is None:
        raise DemoError(f"{command[0]} is missing; install e2fsprogs")
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"{' '.join(command)} ended with code {done.returncode}: {done.stderr.strip()}")


def _descriptor(name: str, disk: Disk) -> str:
    sectors = disk.size_mib * MIB // _SECTOR
    return f"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {sectors} VMFS "{name}-flat.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{max(1, sectors // (255 * 63))}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "19"
"""


def _vmx(machine: Machine) -> str:
    digits = uuid.uuid5(uuid.NAMESPACE_DNS, f"{machine.name}.demo.invalid").hex
    pairs = " ".join(digits[at : at + 2] for at in range(0, 32, 2))
    identity = f"{pairs[:23]}-{pairs[24:]}"
    lines = [
        '.encoding = "UTF-8"',
        'config.version = "8"',
        'virtualHW.version = "19"',
        f'displayName = "{machine.name}"',
        'guestOS = "debian12-64"',
        'memSize = "2048"',
        f'uuid.bios = "{identity}"',
        'scsi0.present = "TRUE"',
        'scsi0.virtualDev = "lsilogic"',
    ]
    for disk in machine.disks:
        lines.append(f'{disk.key}.present = "TRUE"')
        lines.append(f'{disk.key}.fileName = "{descriptor_path(Path(machine.name), disk).name}"')
    return "\n".join(lines) + "\n"
