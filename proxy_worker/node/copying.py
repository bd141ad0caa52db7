"""Copying restore points between repositories, as tasks of this proxy."""

from __future__ import annotations

from proxy_worker.contract.copying import CopyPlan, CopyPlanResult, DiskCopy
from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger import Claim
from proxy_worker.mover.copy_planning import plan_points
from proxy_worker.mover.copying import Copying
from proxy_worker.node.bench import Bench
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.node.traffic import kept_to_share
from proxy_worker.repository.errors import PointNotFoundError


class OriginalGoneError(NotFoundError):
    """A restore point was removed from the source before it was copied."""


def plan_copies(body: CopyPlan, bench: Bench, *_: object) -> CopyPlanResult:
    """Say which of a job's restore points the target lacks."""
    source, target = bench.repository(body.source, "read"), bench.repository(body.repository, "write")
    return CopyPlanResult(points=tuple(plan_points(source, target, body.points)))


def copy_disk(body: DiskCopy, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> DiskBackupResult:
    """Copy what the target lacks of one disk."""
    source, target = bench.repository(body.source, "read"), bench.repository(body.repository, "write")
    copying = Copying(source, target, body.source.name, body.level)
    try:
        reader_of = source.reader(source.point(body.vm.vm_id, body.original.point), sealed=copying.sealed)
    except PointNotFoundError as error:
        raise OriginalGoneError(
            f"restore point {body.original.point} of {body.vm.name}",
            why=f"it was removed from repository {body.source.name} before it was copied",
            remedy="The next run copies what is there then.",
        ) from error
    with reader_of as reader, kept_to_share(bench, claim, TrafficKind.COPY, body.repository, body.job) as pacing:
        return copying.copy_disk(
            reader,
            body.disk_key,
            run=body.run,
            fence=claim.fence.number,
            control=keeper,
            checkpoint=claim.checkpoint,
            pacing=pacing,
        )
