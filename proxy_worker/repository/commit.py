"""Committing a VM run: the one step that makes its disks a restore point."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.errors import RunEndedError
from proxy_worker.repository.keyring import ZERO_ID
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.points import Point, StoredDisk, encode_outcome, is_ended, load_outcome, point_name
from proxy_worker.repository.registration import forget_writers
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import Store
from proxy_worker.repository.upkeep import keep_for_point
from proxy_worker.repository.writer import DiskAttempt, open_sealed

if TYPE_CHECKING:
    from proxy_worker.contract.subjects import DiskIdentity, VmIdentity


def commit_run(
    access: Access,
    chunks: ChunkReader,
    *,
    vm: VmIdentity,
    run: str,
    job: str,
    disks: Sequence[tuple[DiskIdentity, int, str]],
    started_at: float,
    sequence: int,
    created_at: float | None = None,
) -> Point:
    """Create the point if the run hasn't ended, then remove its writers' marks. `created_at`: now, unless given.

    Everything is verified before: results are of this run and these fences, maps and segments are in durable packs.
    Where objects have terms, the packs have at least those of the point. Raises `RunEndedError` also for a point
    that is marked as removed: nobody would honour it.
    """
    store, sealer = access.store, access.sealer
    stored = tuple(
        _opened(sealer, DiskAttempt(vm.vm_id, run, disk.key, fence), sealed) for disk, fence, sealed in disks
    )
    point = Point(
        vm_id=vm.vm_id,
        vm_name=vm.name,
        run=run,
        job=job,
        sequence=sequence,
        created_at=time.time() if created_at is None else created_at,
        started_at=started_at,
        token=secrets.token_bytes(16),
        disks=stored,
    )
    try:
        for disk in stored:
            _require_resolvable(store, chunks, disk)
        keep_for_point(access, chunks, vm.vm_id, stored)
    except DamageError:
        if not store.exists(point_name(vm.vm_id, run)):
            raise
        point = _earlier(store, sealer, point)  # a collector has ended the run, and taken what it had stored
    if not store.put_if_absent(point_name(vm.vm_id, run), [encode_outcome(sealer, point)]):
        point = _earlier(store, sealer, point)
    forget_writers(store, vm_id=vm.vm_id, run=run)
    if is_ended(store, vm.vm_id, run):
        raise _ended(point, "its restore point is marked as removed, and counts no more")
    return point


def _opened(sealer: MetadataSealer, attempt: DiskAttempt, sealed: str) -> StoredDisk:
    name = attempt.seal_name("result")
    stored = open_sealed(sealer, name, sealed, StoredDisk)
    if (stored.key, stored.fence) != (attempt.disk_key, attempt.fence):
        raise sealer.damage(name, f"it is of fence {stored.fence}, the finished attempt had {attempt.fence}")
    return stored


def _require_resolvable(store: Store, chunks: ChunkReader, disk: StoredDisk) -> None:
    disk_map = load_map(chunks, disk.map_id)
    present: dict[str, bool] = {}
    for segment_id in dict.fromkeys(disk_map.segments):
        if segment_id == ZERO_ID:
            continue
        names = {location.pack.name for location in chunks.locate(segment_id, ChunkKind.SEGMENT)}
        for name in names - present.keys():
            present[name] = store.exists(name)
        if not any(present[name] for name in names):
            raise chunks.missing(f"segment {segment_id.hex()} of disk {disk.key}")


def _earlier(store: Store, sealer: MetadataSealer, point: Point) -> Point:
    """The point of the same content that is there already: this commit's own after a lost reply, or one that an
    earlier try of the same task made. Anything else means that the run has ended otherwise."""
    outcome = load_outcome(store, sealer, point.vm_id, point.run)
    if isinstance(outcome, Point) and (outcome.token == point.token or outcome.same_content(point)):
        return outcome
    raise _ended(point, "it was committed with other disks" if isinstance(outcome, Point) else "it was abandoned")


def _ended(point: Point, why: str) -> RunEndedError:
    return RunEndedError(f"run {point.run} of VM {point.vm_name}", why=why, remedy="Start a new run.")
