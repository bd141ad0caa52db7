"""Restores of a whole disk: to memory, which compares the programs, and to a disk, until it is durable there.

A backup reads its disk from the page cache; a restore writes it to memory, for the same reason: the disks of rented
machines write at a third of their speed, and less, once the credit for bursts is spent. Where the target is a disk,
restic leaves the data in the page cache when it exits, and ours is durable by then: there, both have to be. How
long restic takes until it exits is kept, too, for who compares both as they are used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import Restic
from benchmarks.process import Measured, rest
from benchmarks.standalone import Repository

_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs is what it is for


def measure_restores(
    ours: Repository,
    restic: Restic | None,
    original: Path,
    work: Path,
    note: Callable[[str, Measured], None],
) -> None:
    """Restore the newest point of the disk; raises `CalledProcessError` where it isn't equal to the original."""
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="proxyfleet-bench-") as memory:
        _measure(ours, restic, original, Path(memory), note)
    on_disk = work / "restored"
    try:
        if restic:
            rest()
            exited = restic.restore(on_disk)
            note("restic_durable_restore", _durable(exited, on_disk))
            note("restic_disk_restore", exited)
            shutil.rmtree(on_disk)
        on_disk.mkdir()
        rest()
        note("durable_restore", ours.restore(on_disk / "disk.raw"))
    finally:
        shutil.rmtree(on_disk, ignore_errors=True)


def _measure(
    ours: Repository, restic: Restic | None, original: Path, folder: Path, note: Callable[[str, Measured], None]
) -> None:
    if restic:
        for name, sparse in (("restic_restore", False), ("restic_sparse_restore", True)):
            note(name, restic.restore(folder / "restic", sparse=sparse))
            shutil.rmtree(folder / "restic")
    note("restore", ours.restore(folder / "ours.raw"))
    subprocess.run(["cmp", str(folder / "ours.raw"), str(original)], check=True)


def _durable(measured: Measured, folder: Path) -> Measured:
    """With the time until what is in a folder is on the disk."""
    started = time.monotonic()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
    return replace(measured, wall_s=measured.wall_s + time.monotonic() - started)
