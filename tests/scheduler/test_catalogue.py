"""What a rescan does to the catalogue of restore points."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from proxy_worker.contract.outcome import PointSummary, RepositoryListResult
from proxy_worker.contract.specification import VmIdentity
from scheduler.runs.catalogue import replace_points
from scheduler.state.models import Point
from scheduler.state.store import open_state

WEB01 = VmIdentity(vm_id="vm-1", name="web01")


def summary(run: str) -> PointSummary:
    return PointSummary(vm=WEB01, run=run, job="nightly", created_at=1.0, disks=())


def listed(*points: str, unreadable: tuple[str, ...] = ()) -> RepositoryListResult:
    return RepositoryListResult(
        repository_id="r",
        points=tuple(map(summary, points)),
        unreadable=tuple((WEB01.vm_id, run) for run in unreadable),
    )


def test_what_cannot_be_read_for_a_while_stays_pinned(tmp_path: Path) -> None:
    """A pin is kept in the catalogue alone: forgotten, retention would remove the point once it is readable."""
    with open_state(f"sqlite:///{tmp_path / 'state.db'}", migrate=True).write() as session:
        replace_points(session, "main", listed("first", "second"), asked_at=1000.0)
        session.get_one(Point, ("main", WEB01.vm_id, "first")).pinned = True

        rescanned = replace_points(session, "main", listed(unreadable=("first",)), asked_at=2000.0)
        replace_points(session, "main", listed("first"), asked_at=3000.0)

        assert rescanned.removed == 1
        [point] = session.scalars(select(Point))
        assert (point.point, point.pinned) == ("first", True)
