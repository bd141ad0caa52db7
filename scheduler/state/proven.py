"""How well the restore points of a repository are proven, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.state.models import Point


@dataclass(frozen=True, slots=True)
class ProofFigures:
    """Of one repository."""

    points: int
    unproven: int
    """Restore points of which not everything has been read yet."""
    damaged: int
    """Restore points that wait for repair."""
    oldest_proof_at: float | None
    """Since when everything that the proven ones need has been read, in Unix seconds; None if there are none."""
    booted: int
    """Restore points whose VM was started last time, and asked for a login."""
    unbootable: int
    """Those whose VM didn't."""


def proof_figures(session: Session, repository: str) -> ProofFigures:
    """The figures of a repository, as the catalogue has them since its last proof."""
    found = session.execute(
        select(
            func.count(),
            func.count(Point.proven_at),
            func.count().filter(Point.damaged),
            func.min(Point.proven_at),
            func.count(Point.booted_at),
            func.count(Point.boot_problem),
        ).where(Point.repository == repository)
    ).one()
    points, proven, damaged, oldest, started, unbootable = found
    return ProofFigures(points, points - proven, damaged, oldest, started - unbootable, unbootable)


def damaged_points(session: Session, repository: str | None = None) -> list[Point]:
    """The restore points that wait for repair, by VM."""
    wanted = select(Point).where(Point.damaged).order_by(Point.vm_name, Point.created_at)
    if repository is not None:
        wanted = wanted.where(Point.repository == repository)
    return list(session.scalars(wanted))
