"""Restore points: the only commit, and the tombstones that stand where none will be."""

from __future__ import annotations

import msgspec

from proxy_worker.contract.outcome import PointDisk, PointSummary
from proxy_worker.contract.specification import VmIdentity


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a VM's configuration (VMX, NVRAM), stored as blocks."""

    name: str
    size_bytes: int
    block_ids: tuple[bytes, ...]
    """One for each piece of the repository's block size; the last piece is as long as is left."""


class StoredDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk within a restore point: the root of its hash tree, and where it came from."""

    key: str
    size_bytes: int
    map_id: bytes
    fence: int
    stored_bytes: int
    parent: str | None
    """The run whose point it was compared with."""
    source: str
    """The disk's address at the time, as JSON; provenance only."""
    report: str
    """The disk task's figures, as JSON (`DiskReport`)."""
    configuration: tuple[StoredFile, ...] = ()


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A VM at one moment."""

    vm_id: str
    vm_name: str
    run: str
    job: str
    sequence: int
    """1 + the highest of the VM's points seen when it was committed: order without trusting one clock."""
    created_at: float
    """Unix seconds, by the clock of the proxy that committed it."""
    started_at: float
    token: bytes
    """Random: after a lost reply it tells the own commit from another's."""
    disks: tuple[StoredDisk, ...]

    def disk(self, key: str) -> StoredDisk:
        """The disk at place `key`; raises `PointNotFoundError`."""
        raise NotImplementedError

    @property
    def configuration(self) -> tuple[StoredFile, ...]:
        """The VM's configuration files, whichever disk's task stored them."""
        return tuple(file for disk in self.disks for file in disk.configuration)

    def summary(self) -> PointSummary:
        """The form that lists show."""
        return PointSummary(
            vm=VmIdentity(vm_id=self.vm_id, name=self.vm_name),
            run=self.run,
            job=self.job,
            created_at=self.created_at,
            disks=tuple(
                PointDisk(key=disk.key, size_bytes=disk.size_bytes, stored_bytes=disk.stored_bytes)
                for disk in self.disks
            ),
        )
