"""When each restore point was last proven: when the one of its packs was read that was read longest ago.

A map lists the packs that its disk was stored in or compared with. Where one of them is gone, a collector has moved
what was needed of it, who knows where: then everything counts, so that a point is never called proven too late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.errors import ShutOutError
from proxy_worker.repository.losses import Losses
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.points import Point
from proxy_worker.repository.proofs import NEVER, Proofs
from proxy_worker.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class PointProof:
    """What is known of a restore point. Times in Unix seconds, None for never."""

    vm_id: str
    run: str
    proven_at: int | None
    """Everything that it needs was read and sound since then."""
    sampled_at: int | None
    """A sample of it was restored and was right then."""
    damaged: bool
    """Something that it needs is lost, and waits for repair."""


def prove_points(repository: Repository, proofs: Proofs, losses: Losses) -> Iterator[PointProof]:
    """What is known of each restore point."""
    for point in repository.points():
        proven_at = _proven_at(repository, proofs, point)
        damaged = (point.vm_id, point.run) in losses.points
        sampled_at = proofs.samples.get(f"{point.vm_id}/{point.run}")
        yield PointProof(point.vm_id, point.run, None if damaged else proven_at, sampled_at, damaged)
    for name, damage in repository.damaged_points.items():
        if isinstance(damage, ShutOutError):
            continue  # it counts no more
        _, vm_id, run = name.split("/")
        yield PointProof(vm_id, run, None, None, damaged=True)


def _proven_at(repository: Repository, proofs: Proofs, point: Point) -> int | None:
    oldest: int | None = None
    for disk in point.disks:
        try:
            packs = load_map(repository.chunks, disk.map_id).packs
        except DamageError:
            return None
        times = [proofs.proven_at(pack_id) for pack_id in packs]
        known = [proven_at for proven_at in times if proven_at is not None]
        if len(known) < len(times) or not known:
            known = [proofs.oldest or NEVER]
        oldest = min([*known, *([oldest] if oldest is not None else [])])
    return None if oldest in {None, NEVER} else oldest
