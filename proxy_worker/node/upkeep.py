"""Keeping a repository small: removing restore points, and freeing what none needs."""

from __future__ import annotations

from dataclasses import asdict, replace

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.contract.outcome import (
    KeptPacks,
    PointDeleteResult,
    ProvenPoint,
    RepositoryCollectResult,
    RepositoryProveResult,
)
from proxy_worker.contract.specification import PointDelete, RepositoryCollect, RepositoryProve
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.tally import RequestMeter
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
    repository = bench.repository(body.repository, "write")
    meter = RequestMeter(repository.access.store)
    report = collect(repository, settings, go_on=go_on)
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
        requests=meter.read(),
    )


def prove_repository(
    body: RepositoryProve, bench: Bench, claim: Claim, keeper: LeaseKeeper
) -> RepositoryProveResult:
    """Read a piece, mend and sample."""

    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop; the next proof goes on")

    linked, notes = _linked(body, bench)
    settings = ProofSettings(
        period_s=body.period_s,
        most_s=body.most_s,
        bytes_per_s=body.bytes_per_s,
    )
    if not body.samples:
        settings = replace(settings, sampled_points=0)
    repository = bench.repository(body.repository, "read")
    meter = RequestMeter(repository.access.store)
    report = prove(repository, settings, linked=linked, go_on=go_on)
    return RepositoryProveResult(
        packs=report.packs,
        read_bytes=report.read_bytes,
        sampled=report.sampled,
        overdue=report.overdue,
        damage=tuple(map(str, report.findings)),
        mended=(*report.repaired.rebuilt, *report.repaired.mended),
        notes=(*notes, *report.repaired.left),
        points=tuple(ProvenPoint(**asdict(point)) for point in report.points),
        duration_seconds=report.duration_seconds,
        requests=meter.read(),
    )


def _linked(body: RepositoryProve, bench: Bench) -> tuple[list[Repository], list[str]]:
    """The linked repositories that can be read here, and why the others can't."""
    opened, notes = [], []
    for reference in body.linked:
        try:
            repository = bench.repository(reference, "read")
        except ProxyfleetError as error:
            notes.append(f"linked repository {reference.name} isn't used: {error}")
            continue
        if repository.can_read:
            opened.append(repository)
        else:
            notes.append(f"linked repository {reference.name} isn't used: this proxy has no read key to it")
    return opened, notes
