"""Real block devices and file systems out of files: loop devices, mounted where a test wants them. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
SIZE = {"btrfs": 256 * MIB, "xfs": 320 * MIB, "ext4": 16 * MIB}
"""About the smallest that each mkfs makes."""
_MAKE = {
    "btrfs": ["mkfs.btrfs", "-q", "-m", "single"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "ext4": ["mkfs.ext4", "-q"],
}


def run(*command: str | Path) -> str:
    """What a command prints; fails with what it said, and with what is missing where it can't be run at all."""
    assert os.geteuid() == 0, f"{command[0]} needs root: run these tests as root, or in a privileged container"
    found = shutil.which(str(command[0]), path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{command[0]} isn't installed; ops/system-packages.txt says where it comes from"
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"
    return done.stdout.strip()


def attach(file: Path) -> Path:
    """A read-only loop device over a file."""
    return Path(run("losetup", "--read-only", "--find", "--show", file))


def detach(device: Path) -> None:
    """Give a loop device back."""
    run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """A new file system of a kind, `btrfs` or `xfs`, mounted within `folder` for this block."""
    image, point = folder / f"{kind}.img", folder / kind
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE[kind])
    run(*_MAKE[kind], image)
    run("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        run("umount", point)
        image.unlink()
