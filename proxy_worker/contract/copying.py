"""Copying restore points from one repository to another: what is asked for, and what comes of the planning."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from proxy_worker.contract.names import CompressionLevel, TaskKind
from proxy_worker.contract.subjects import (
    DiskIdentity,
    DiskKey,
    Frozen,
    Name,
    RepositoryReference,
    VmIdentity,
)


class CopyOf(Frozen):
    """The original of a copy, and the place in time that the copy has from it."""

    point: Name
    """Its run in the source."""
    sequence: int
    created_at: float
    started_at: float
    needs_read_key: bool
    """Whether the proxy that copies it has to open its blocks; not between twins, whose blocks go over sealed."""


class PointToCopy(Frozen):
    """A restore point of the source."""

    vm: VmIdentity
    point: Name


class CopyPlan(Frozen):
    """Look which of these restore points the target lacks; reads no blocks."""

    kind: Literal[TaskKind.COPY_PLAN] = TaskKind.COPY_PLAN
    job: str
    source: RepositoryReference
    repository: RepositoryReference
    """The target."""
    points: tuple[PointToCopy, ...]


class CopyState(StrEnum):
    """What a target has of a restore point."""

    MISSING = "missing"
    THERE = "there"
    REMOVED = "removed"
    """It was copied before, and given up in the target since."""
    GONE = "gone"
    """It is not in the source any more."""
    DAMAGED = "damaged"
    """Its entry in one of the two can't be read."""


class PlannedCopy(Frozen):
    """A restore point, and what has to be done with it."""

    vm: VmIdentity
    point: Name
    state: CopyState
    problem: str | None = None
    """What is wrong with a damaged one."""
    run: Name | None = None
    """What it is, or will be, called in the target."""
    original: CopyOf | None = None
    """With the next: of one that is missing in the target."""
    disks: tuple[DiskIdentity, ...] = ()


class CopyPlanResult(Frozen):
    """The same restore points, in the same order."""

    kind: Literal[TaskKind.COPY_PLAN] = TaskKind.COPY_PLAN
    points: tuple[PlannedCopy, ...]


class DiskCopy(Frozen):
    """Store what the target lacks of one disk of a restore point; the result is that of a backup."""

    kind: Literal[TaskKind.DISK_COPY] = TaskKind.DISK_COPY
    job: str
    vm: VmIdentity
    disk_key: DiskKey
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    source: RepositoryReference
    original: CopyOf
    repository: RepositoryReference
    """The target."""
    run: Name
    """What the copy is called there."""
    level: CompressionLevel = CompressionLevel.OPTIMAL
    """How hard blocks are compressed that are sealed anew."""
