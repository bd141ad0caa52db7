"""Moving one disk: into a repository, and back. All sizes are in bytes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import CompressionLevel, TaskKind
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    DiskKey,
    Extent,
    Frozen,
    Name,
    RepositoryReference,
    TransportPreference,
    VmIdentity,
)


class DiskBackup(Frozen):
    """Read one disk and store what the repository doesn't have."""

    kind: Literal[TaskKind.DISK_BACKUP] = TaskKind.DISK_BACKUP
    run: Name
    """The VM run's id in the repository: `points/<vm_id>/<run>`."""
    job: str
    vm: VmIdentity
    disk: DiskIdentity
    transport: TransportPreference
    repository: RepositoryReference
    level: CompressionLevel = CompressionLevel.OPTIMAL
    changed_areas: tuple[Extent, ...] | None = None
    """Relative to `parent`; None when the inventory can't tell, and digests decide."""
    parent: Name | None = None
    """The run whose point the changed areas are relative to; None means the newest point."""
    areas_in_use: tuple[Extent, ...] | None = None
    """All that may hold something other than zeros, where the disk is read whole; None when nobody can tell."""
    full_read_reason: str | None = None
    """Why the inventory can't tell which areas changed, for the report."""
    configuration: tuple[DiskAddress, ...] = ()
    """Files of the VM's configuration that this task stores beside its disk; one disk of a VM run has them."""


class DiskBackupResult(Frozen):
    """A stored disk, not yet part of a restore point."""

    kind: Literal[TaskKind.DISK_BACKUP] = TaskKind.DISK_BACKUP
    report: DiskReport
    sealed_result: str


class DiskRestore(Frozen):
    """Write a disk of a restore point to a file or block device of the proxy that runs this, or to a VM's disk."""

    kind: Literal[TaskKind.DISK_RESTORE] = TaskKind.DISK_RESTORE
    repository: RepositoryReference
    vm: VmIdentity
    run: Name
    disk_key: DiskKey
    target_path: str | None = None
    overwrite: bool = False
    target: DiskAddress | None = None
    """A disk of a vCenter's VM, which is powered off; takes the place of `target_path`."""
    target_is_blank: bool = False
    """Whether `target` reads as zeros wherever this restore hasn't written, so that zeros may be left out."""
    changed_areas: tuple[Extent, ...] | None = None
    """Where `target` differs from the restore point at most: nothing else is written. None: everywhere."""
    full_write_reason: str | None = None
    """Why it isn't known where an existing `target` differs, for the report."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if (self.target_path is None) == (self.target is None):
            raise ValueError("give target_path or target")
        return self


class DiskRestoreResult(Frozen):
    """A disk written back and verified block by block."""

    kind: Literal[TaskKind.DISK_RESTORE] = TaskKind.DISK_RESTORE
    report: DiskReport
    target_path: str
