"""How far a disk task is, and what it has done, in figures.

Sizes are in bytes, durations in seconds, rates in bytes per second. Nothing here is secret.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.requests import StoreRequests
from proxy_worker.contract.subjects import Frozen, Name


class Bottleneck(StrEnum):
    """The stage that was busiest, and so set the pace."""

    SOURCE = "source"
    PROXY = "proxy"
    NETWORK = "network"
    TARGET = "target"


class Receiver(Frozen):
    """Where a target's proxy listens for one disk."""

    proxy: Name
    """As its certificate names it."""
    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)]


class DiskProgress(Frozen):
    """How far a disk task is; replaced, not added up."""

    size_bytes: int
    processed_bytes: int
    """How much of the disk is behind it, whether it was read, skipped or unchanged."""
    read_bytes: int
    stored_bytes: int
    """Backup: added to the repository. Restore: written to the target."""
    rate: float
    """Processed bytes per second, over the last few seconds."""
    mode: TransportMode | None = None
    paused: bool = False
    ready: Receiver | None = None
    """Of a replica's disk: where the target listens for what its source sends."""


class StageTimes(Frozen):
    """Seconds each stage was busy, summed over its threads."""

    read: float = 0.0
    transform: float = 0.0
    deliver: float = 0.0


class DiskReport(Frozen):
    """A finished disk task in figures."""

    size_bytes: int
    read_bytes: int
    """Read from the source (backup) or the repository (restore)."""
    zero_bytes: int
    unchanged_bytes: int
    """Equal to the parent, by changed areas or by digest."""
    duplicate_bytes: int
    """Changed, but already in the repository."""
    stored_bytes: int
    """Added to the repository (backup) or written to the target (restore)."""
    duration_seconds: float
    mode: TransportMode
    mode_reason: str
    """Why that mode, and why not a better one."""
    parent: Name | None = None
    full_read_reason: str | None = None
    """Why the disk was read whole, when changed areas or a parent could have been expected."""
    alarm: str | None = None
    """What an administrator has to look into: changed block tracking that missed a change."""
    bottleneck: Bottleneck = Bottleneck.SOURCE
    stages: StageTimes = StageTimes()
    resumed_bytes: int = 0
    """Taken over from an earlier attempt's checkpoint."""
    requests: StoreRequests | None = None
    """In the attempt that succeeded; None where the repository isn't in object storage."""
