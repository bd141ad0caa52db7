"""What the mover's tests have in common: disks in files, a repository, and one call for a backup or a restore."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from proxy_worker.contract.disks import DiskBackup, DiskRestore
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    Extent,
    RepositoryReference,
    TransportPreference,
    VcenterReference,
    VmIdentity,
    VsphereDisk,
)
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.control import Control, Unattended, Verdict
from proxy_worker.mover.restore import restore_disk
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository, new_run_id
from proxy_worker.transport.named import open_path
from proxy_worker.transport.source import DiskSource

KEY = "scsi0:0"
BLOCK = 64 << 10
SEGMENT = BLOCK * 4096
_numbers = count(1)


def new_vm() -> VmIdentity:
    """A VM that the repository has never seen."""
    number = next(_numbers)
    return VmIdentity(vm_id=f"vm-{number}", name=f"machine {number}")


def make_disk(path: Path, size_bytes: int, pieces: Iterable[tuple[int, bytes]]) -> Path:
    """A sparse raw disk with data at some offsets."""
    with path.open("wb") as disk:
        disk.truncate(size_bytes)
        for offset, data in pieces:
            disk.seek(offset)
            disk.write(data)
        disk.truncate(size_bytes)
    return path


def data_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a sparse file has allocated: offset and content, in pieces of at most a MiB that aren't zeros."""
    with path.open("rb") as disk:
        size, position = disk.seek(0, os.SEEK_END), 0
        while position < size:
            try:
                position = os.lseek(disk.fileno(), position, os.SEEK_DATA)
            except OSError:
                return
            position -= position % (1 << 20)
            content = os.pread(disk.fileno(), 1 << 20, position)
            if content.strip(b"\0"):
                yield position, content
            position += 1 << 20


def request(
    vm: VmIdentity,
    *,
    run: str | None = None,
    areas: Iterable[tuple[int, int]] | None = None,
    parent: str | None = None,
    level: CompressionLevel = CompressionLevel.OPTIMAL,
    tracked: bool = False,
) -> DiskBackup:
    """A request for a disk of `vm`; `tracked` when its areas are vSphere's."""
    vsphere = VsphereDisk(
        vcenter=VcenterReference(name="vc1", host="vc1.example", user="backup", credential="vc1"),
        vm="vm-1",
        snapshot="snapshot-1",
        key=2000,
        path="[ds1] web/web.vmdk",
        controller="scsi",
        datastore_type="VMFS",
    )
    return DiskBackup(
        run=run or new_run_id(),
        job="nightly",
        vm=vm,
        disk=DiskIdentity(key=KEY, address=DiskAddress(path="disk.raw", vsphere=vsphere if tracked else None)),
        transport=TransportPreference(),
        repository=RepositoryReference(name="main", location="/backup", credential="main"),
        level=level,
        changed_areas=None if areas is None else tuple(Extent(offset=o, length=n) for o, n in areas),
        parent=parent,
    )


def commit(repository: Repository, asked: DiskBackup, sealed_result: str, fence: int = 1) -> Point:
    """Make a stored disk a restore point."""
    return repository.commit(
        vm=asked.vm, run=asked.run, job=asked.job, disks=[(asked.disk, fence, sealed_result)], started_at=0.0
    )


def back_up(
    repository: Repository, disk: Path | DiskSource, asked: DiskBackup, control: Control | None = None
) -> tuple[Point, DiskReport]:
    """Back up a disk and commit it."""
    source = open_path(str(disk)) if isinstance(disk, Path) else disk
    with source:
        result = back_up_disk(source, repository, asked, fence=1, control=control or Unattended())
    return commit(repository, asked, result.sealed_result), result.report


def restore(repository: Repository, point: Point, path: Path, *, overwrite: bool = False) -> DiskReport:
    """Restore a point's disk to `path`."""
    asked = DiskRestore(
        repository=RepositoryReference(name="main", location="/backup", credential="main"),
        vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
        run=point.run,
        disk_key=KEY,
        target_path=str(path),
        overwrite=overwrite,
    )
    return restore_disk(repository, asked, Unattended()).report


@dataclass
class RecordingControl:
    """Lets the work run and keeps what it hears; `stop` ends it."""

    checkpoints: list[str] = field(default_factory=list)
    reports: list[DiskProgress] = field(default_factory=list)
    checkpointed: threading.Event = field(default_factory=threading.Event)
    stop: bool = False

    def report(self, progress: DiskProgress) -> None:
        self.reports.append(progress)

    def checkpoint(self, sealed: str) -> None:
        self.checkpoints.append(sealed)
        self.checkpointed.set()

    def verdict(self) -> Verdict:
        return Verdict.STOP if self.stop else Verdict.RUN
