"""Keeping a repository small: removing restore points, and freeing what none needs."""

from __future__ import annotations

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.outcome import KeptPacks, PointDeleteResult, RepositoryCollectResult
from proxy_worker.contract.specification import PointDelete, RepositoryCollect
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.withdrawal import end_point


def delete_point(body: PointDelete, bench: Bench, *_: object) -> PointDeleteResult:
    """Remove one restore point."""
    access = bench.repository(body.repository, "write").access
    return PointDeleteResult(found=end_point(access, vm_id=body.vm.vm_id, run=body.run))


def collect_repository(
    body: RepositoryCollect, bench: Bench, claim: Claim, keeper: LeaseKeeper
) -> RepositoryCollectResult:
    """Collect once, without waiting for runs at work: others wait for this process."""

    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop; the next collection goes on")

    settings = CollectorSettings(dry_run=body.dry_run, bytes_per_s=body.bytes_per_s)
    report = collect(bench.repository(body.repository, "write"), settings, go_on=go_on)
    return RepositoryCollectResult(
        dry_run=report.dry_run,
        points=report.points,
        packs=report.packs,
        live_bytes=report.live_bytes,
        freed_packs=report.freed_packs,
        freed_bytes=report.freed_bytes,
        rewritten_packs=report.rewritten_packs,
        moved_bytes=report.moved_bytes,
        waiting_for=report.waiting_for,
        kept=tuple(KeptPacks(packs=kept.packs, size_bytes=kept.size_bytes, why=kept.why) for kept in report.kept),
        notes=report.notes,
        duration_seconds=report.duration_seconds,
    )
