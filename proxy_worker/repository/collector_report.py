"""What a collection did, and did not do, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counted:
    """Some packs that stay."""

    packs: int
    size_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """The outcome of a collection; of a dry run, what it would have done."""

    dry_run: bool = False
    points: int = 0
    """Restore points looked at."""
    packs: int = 0
    """Packs there were."""
    live_bytes: int = 0
    """What restore points need, each piece counted once."""
    freed_packs: int = 0
    freed_bytes: int = 0
    """Of deleted packs; what was moved out of them before takes up room again (`moved_bytes`)."""
    rewritten_packs: int = 0
    """Those of them that were mostly dead, and were moved out of."""
    moved_bytes: int = 0
    new_packs: int = 0
    resealed_keys: int = 0
    """Data keys of older packs that were sealed to the newest key pair, after a rotation."""
    extended_locks: int = 0
    """Objects that restore points need and whose lock had less than half a period left."""
    rescued_packs: int = 0
    """Condemned, and needed after all by a run that was at work."""
    removed_points: int = 0
    """Objects of points that had been ended earlier."""
    ended_runs: tuple[str, ...] = ()
    """Runs that were given up for dead: VM id and run."""
    waiting_for: tuple[str, ...] = ()
    """Runs at work: what is condemned stays until they have ended and the next collection comes."""
    list_number: int | None = None
    """Of the list that waits."""
    kept: tuple[Counted, ...] = ()
    notes: tuple[str, ...] = ()
    duration_seconds: float = 0.0
