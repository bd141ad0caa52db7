"""The catalogue of restore points beside a repository that can't be read, and beside clocks that are wrong."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import select

from proxy_worker.contract.outcome import PointSummary, RepositoryListResult
from proxy_worker.contract.subjects import VmIdentity
from scheduler.planning.retention import Retention
from scheduler.runs.catalogue import replace_points
from scheduler.runs.retention import verdicts
from scheduler.state.asking import find_point
from scheduler.state.models import Job, Point
from scheduler.state.store import open_state

DAY_S = 86_400.0
WEB01 = VmIdentity(vm_id="vm-1", name="web01")


def summary(run: str) -> PointSummary:
    return PointSummary(vm=WEB01, run=run, job="nightly", created_at=1.0, disks=())


def listed(*points: str, unreadable: tuple[str, ...] = ()) -> RepositoryListResult:
    return RepositoryListResult(
        repository_id="r",
        points=tuple(map(summary, points)),
        unreadable=tuple((WEB01.vm_id, run) for run in unreadable),
    )


def test_days_are_not_counted_by_a_clock_that_runs_a_year_ahead_of_the_proxies(tmp_path: Path) -> None:
    job = Job(name="nightly", repository="main", timezone="UTC", retention=Retention(points=0, days=3))
    with open_state(f"sqlite:///{tmp_path / 'state.db'}", migrate=True).write() as session:
        listing = listed(*(f"day-{day}" for day in range(9)))
        replace_points(session, "main", listing, asked_at=0.0)
        for point in session.scalars(select(Point)):
            point.created_at = DAY_S * int(point.point.removeprefix("day-"))

        for ahead in (0, 365):
            found = verdicts(session, job, WEB01.vm_id, now=DAY_S * (8 + ahead))
            assert [one.point.point for one in found if one.kept] == ["day-8", "day-7", "day-6", "day-5"]


def test_the_newest_is_none_that_is_dated_ahead(tmp_path: Path) -> None:
    with open_state(f"sqlite:///{tmp_path / 'state.db'}", migrate=True).write() as session:
        replace_points(session, "main", listed("ahead", "last"), asked_at=0.0)
        session.get_one(Point, ("main", WEB01.vm_id, "ahead")).created_at = time.time() + 365 * DAY_S

        assert find_point(session, "web01").point == "last"


def test_what_cannot_be_read_takes_no_sound_points_place(tmp_path: Path) -> None:
    """Else the last point that can be restored would go for it."""
    job = Job(name="nightly", repository="main", timezone="UTC", retention=Retention(points=1))
    with open_state(f"sqlite:///{tmp_path / 'state.db'}", migrate=True).write() as session:
        replace_points(session, "main", listed("day-1", "day-2", "day-3"), asked_at=0.0)
        replace_points(session, "main", listed("day-1", "day-2", unreadable=("day-3",)), asked_at=1000.0)

        found = verdicts(session, job, WEB01.vm_id, now=1000.0)

        assert [one.point.point for one in found if one.kept] == ["day-3", "day-2"]


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
