"""Use of a restore point in place: a VM started from it for proof, its disks served to a hypervisor's host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.subjects import DiskKey, Frozen, Name, RepositoryReference, VmIdentity

ShareName = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""What a host mounts a served point by: random, since whoever knows it may read and write."""


class BootWishes(Frozen):
    """What is waited for when a VM is started from a restore point, and how long."""

    prompt: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A regular expression that its first serial port is watched for; None: a login prompt."""
    limit_s: Annotated[float, Field(gt=0, le=24 * 3600)] = 300.0


class PointBoot(Frozen):
    """Start a VM from a restore point and wait for its login prompt; changes nothing."""

    kind: Literal[TaskKind.POINT_BOOT] = TaskKind.POINT_BOOT
    repository: RepositoryReference
    vm: VmIdentity
    run: Name
    wishes: BootWishes = BootWishes()


class PointBootResult(Frozen):
    """How its start ended. That it showed no prompt is a result, too."""

    kind: Literal[TaskKind.POINT_BOOT] = TaskKind.POINT_BOOT
    prompt: str | None
    """What it asked a person to log in with; None when it didn't."""
    why: str
    """Why there was no prompt; empty when there was."""
    machine: str
    """What it was started as, in a line."""
    last_lines: tuple[str, ...]
    """The end of what it said on its first serial port."""
    duration_seconds: float


class PointServe(Frozen):
    """Serve the disks of a restore point by NFS, until `PointRelease`; done again, it is served already."""

    kind: Literal[TaskKind.POINT_SERVE] = TaskKind.POINT_SERVE
    repository: RepositoryReference
    vm: VmIdentity
    run: Name
    share: ShareName


class ServedDisk(Frozen):
    """A disk, and its descriptor in the share."""

    key: DiskKey
    size_bytes: int
    path: str
    """Below the share, e.g. `scsi0-0.vmdk`."""


class PointServeResult(Frozen):
    """Where it is served. It goes on when the proxy is restarted."""

    kind: Literal[TaskKind.POINT_SERVE] = TaskKind.POINT_SERVE
    host: str
    path: str
    """What is mounted of `host`."""
    disks: tuple[ServedDisk, ...]


class PointRelease(Frozen):
    """Serve a restore point no more, and forget what was written to it; done again, it changes nothing."""

    kind: Literal[TaskKind.POINT_RELEASE] = TaskKind.POINT_RELEASE
    repository: RepositoryReference
    share: ShareName


class PointReleaseResult(Frozen):
    """It isn't served any more."""

    kind: Literal[TaskKind.POINT_RELEASE] = TaskKind.POINT_RELEASE
    written_bytes: int
    """What had been written to it, and is forgotten."""
