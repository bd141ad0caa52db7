"""Copying restore points from one repository to another: only what the other lacks, verified on the way.

| the two repositories | what is read of the source | how it is stored |
|---|---|---|
| are twins | blocks whose ids the target lacks | as it is, sealed as before |
| have keys of their own | blocks that differ from the nearest earlier copy, or all | compressed and sealed anew |

A copy has its original's VM, run, place in time and provenance, so that it is found again: nothing is copied twice,
and what retention has ended in the target isn't brought back.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import ValidationError

from proxy_worker.contract.disks import DiskBackup, DiskBackupResult
from proxy_worker.contract.errors import DamageError, NotFoundError, ProxyfleetError, StoreError
from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    Extent,
    RepositoryReference,
    TransportPreference,
    VmIdentity,
)
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.carrying import carry_disk
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.mover.control import Control
from proxy_worker.mover.pacing import Pacing
from proxy_worker.mover.point_source import PointSource
from proxy_worker.repository.copies import find_basis, place_of_copy
from proxy_worker.repository.errors import RunEndedError
from proxy_worker.repository.points import Point, StoredDisk, is_ended
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.registration import forget_writer, forget_writers
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.twins import share_ids


class CopyOutcome(StrEnum):
    """What became of one restore point."""

    COPIED = "copied"
    THERE = "there"
    """It had been copied before."""
    REMOVED = "removed"
    """It had been copied before, and was removed from the target since."""
    GONE = "gone"
    """It was removed from the source before it was copied."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CopiedPoint:
    """One restore point, and what was done. Sizes in bytes."""

    point: Point
    """The original."""
    outcome: CopyOutcome
    run: str = ""
    """The copy's, in the target."""
    sealed: bool = False
    """Whether blocks were carried over as they are stored."""
    reports: tuple[DiskReport, ...] = ()
    """For each disk that was copied."""
    duration_s: float = 0.0
    error: ProxyfleetError | None = None


@dataclass(frozen=True)
class Copying:
    """Copies points from one open repository to another. The source takes a read key, unless they are twins."""

    source: Repository
    target: Repository
    source_name: str
    """What people call the source."""
    level: CompressionLevel = CompressionLevel.OPTIMAL
    _originals: dict[str, list[Point]] = field(default_factory=dict)
    _copies: dict[str, list[Point]] = field(default_factory=dict)
    """Of each VM, as first listed, so that many points take no more listings than one: a point that went since is
    found out when it is used."""

    @property
    def sealed(self) -> bool:
        """Whether blocks go over as they are stored."""
        return share_ids(self.source, self.target)

    def copy(self, point: Point, *, control: Control, about: Callable[[str], None] = lambda _: None) -> CopiedPoint:
        """Copy one point and commit it; `about` hears which disk is next. Damage is in the outcome.

        Raises `StoreError` of either repository, `CannotReadError`, and `CancelledError` when the control says
        stop.
        """
        started_s = time.monotonic()
        try:
            place = place_of_copy(self.target, point)
            if place.there:  # whoever made it may have been killed just after
                forget_writers(self.target.access.store, vm_id=point.vm_id, run=place.run)
            if place.there or place.removed:
                done = CopyOutcome.THERE if place.there else CopyOutcome.REMOVED
                return CopiedPoint(point, done, place.run, self.sealed)
            reports = self._copy(point, place.run, control=control, about=about)
        except RunEndedError as error:
            if place_of_copy(self.target, point).there:  # somebody else has copied it meanwhile
                return CopiedPoint(point, CopyOutcome.THERE, place.run, self.sealed)
            return CopiedPoint(point, CopyOutcome.FAILED, sealed=self.sealed, error=error)
        except (DamageError, NotFoundError) as error:
            if is_ended(self.source.access.store, point.vm_id, point.run):
                return CopiedPoint(point, CopyOutcome.GONE, duration_s=time.monotonic() - started_s)
            return CopiedPoint(
                point, CopyOutcome.FAILED, duration_s=time.monotonic() - started_s, sealed=self.sealed, error=error
            )
        return CopiedPoint(point, CopyOutcome.COPIED, place.run, self.sealed, reports, time.monotonic() - started_s)

    def copy_disk(
        self,
        reader: PointReader,
        disk_key: str,
        *,
        run: str,
        fence: int,
        control: Control,
        checkpoint: str | None = None,
        pacing: Pacing | None = None,
    ) -> DiskBackupResult:
        """Copy one disk of the reader's point under `run`, for a commit to take; raises as `copy` does."""
        point, disk = reader.point, reader.point.disk(disk_key)
        if self.sealed:
            return carry_disk(
                self.source,
                self.target,
                reader,
                disk,
                run=run,
                fence=fence,
                described=f"carried over from restore point {point.run} of {self.source_name}",
                control=control,
                pacing=pacing or Pacing(),
            )
        files = [ConfigurationFile(file.name, reader.read_file(file)) for file in disk.configuration]
        return back_up_disk(
            PointSource(reader, disk_key, repository=self.source_name),
            self.target,
            self._request(point, disk, run),
            fence=fence,
            checkpoint=checkpoint,
            control=control,
            configuration=files,
            pacing=pacing,
        )

    def _copy(
        self, point: Point, run: str, *, control: Control, about: Callable[[str], None]
    ) -> tuple[DiskReport, ...]:
        fence = secrets.randbits(48)  # two copies of one point at the same time have marks of their own
        done: list[tuple[DiskIdentity, int, str]] = []
        reports: list[DiskReport] = []
        begun: list[str] = []
        try:
            with self.source.reader(point, sealed=self.sealed) as reader:
                for disk in point.disks:
                    about(disk.key)
                    begun.append(disk.key)
                    result = self.copy_disk(reader, disk.key, run=run, fence=fence, control=control)
                    done.append((identity_of(disk), fence, result.sealed_result))
                    reports.append(result.report)
        except ProxyfleetError:
            # Nothing relies on what was stored, so no collector need wait for this run; the next copy looks anew.
            # Once a commit has begun the marks stay to the run's end: a lost reply may have been that of success.
            for key in begun:
                with contextlib.suppress(StoreError):  # what ended the copy is the error to show
                    forget_writer(self.target.access.store, vm_id=point.vm_id, run=run, disk_key=key, fence=fence)
            raise
        copy = self.target.commit(
            vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
            run=run,
            job=point.job,
            disks=done,
            started_at=point.started_at,
            original=point,
        )
        self._copies.get(point.vm_id, []).append(copy)
        return tuple(reports)

    def _request(self, point: Point, disk: StoredDisk, run: str) -> DiskBackup:
        vm_id = point.vm_id
        if vm_id not in self._originals:
            self._originals[vm_id] = self.source.points(vm_id)
            self._copies[vm_id] = self.target.points(vm_id)
        basis = find_basis(
            self.source, point, disk.key, originals=self._originals[vm_id], copies=self._copies[vm_id]
        )
        return DiskBackup(
            run=run,
            job=point.job,
            vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
            disk=identity_of(disk),
            transport=TransportPreference(),
            repository=RepositoryReference(name="target", location=self.target.access.store.location),
            level=self.level,
            parent=basis.run if basis else None,
            changed_areas=tuple(Extent(offset=a, length=n) for a, n in basis.changed) if basis else None,
        )


def identity_of(disk: StoredDisk) -> DiskIdentity:
    """A stored disk with the address that it was read from, as far as this version understands that."""
    try:
        address = DiskAddress.model_validate_json(disk.source or "{}")
    except ValidationError:
        address = DiskAddress()
    return DiskIdentity(key=disk.key, address=address, size_bytes=disk.size_bytes)
