"""Proof of repositories: asked for by schedule, and what it says of restore points kept in the catalogue."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import RepositoryProveResult
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.contract.using import PointBootResult
from scheduler.runs.journal import Journal
from scheduler.runs.tasks import reference
from scheduler.runs.turns import next_turn, want_upkeep
from scheduler.state.models import Point, Repository, Request, RequestKind


def proof_is_due(now: float) -> ColumnElement[bool]:
    """Whether a piece of a repository is to be proven, or when that comes next isn't known."""
    return and_(Repository.prove_days > 0, or_(Repository.prove_at.is_(None), Repository.prove_at <= now))


def prove_when_due(journal: Journal) -> None:
    """Ask for the proof of repositories whose time has come; one that is still at it is left alone."""
    for repository in journal.session.scalars(select(Repository).where(proof_is_due(journal.now))).all():
        repository.prove_at = next_turn(
            journal,
            repository,
            RequestKind.PROVE,
            cron=repository.prove_cron,
            timezone=repository.prove_timezone,
            due_at=repository.prove_at,
        )


def linked_to(session: Session, declared: Repository | None) -> list[RepositoryReference]:
    """The repositories that one is linked to."""
    names = declared.linked if declared is not None else ()
    rows = session.scalars(select(Repository).where(Repository.name.in_(names)).order_by(Repository.name))
    return [reference(row, row.name) for row in rows]


def record_proof(journal: Journal, request: Request, result: RepositoryProveResult) -> None:
    """Keep what is known of each restore point; have packs that were mended collected."""
    session = journal.session
    rows = session.scalars(select(Point).where(Point.repository == request.repository)).all()
    known = {(point.vm_id, point.run): point for point in result.points}
    for row in rows:
        proof = known.get((row.vm_id, row.point))
        if proof is not None:
            row.proven_at, row.sampled_at, row.damaged = proof.proven_at, proof.sampled_at, proof.damaged
    if any(name.startswith("packs/") for name in result.mended):
        want_upkeep(journal, RequestKind.COLLECT, request.repository)


def record_boot(journal: Journal, request: Request, result: PointBootResult) -> None:
    """Keep with the restore point, if it is still there, how its VM started."""
    point = journal.session.get(Point, (request.repository, request.vm_id, request.point))
    if point is not None:
        point.booted_at = journal.now
        point.boot_problem = None if result.prompt is not None else result.why
