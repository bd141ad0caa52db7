"""Which restore points a copy job copies."""

from __future__ import annotations

from scheduler.planning.copies import (
    CopyTerms,
    KnownPoint,
    PointChoice,
    Wanted,
    kept_copies,
    nothing_matches,
    wanted_copies,
)
from scheduler.planning.retention import HeldPoint, Retention

DAY_S = 86_400.0
NOW = 9 * DAY_S
ALL = CopyTerms(repository="main", points=PointChoice.ALL)
NEWEST = CopyTerms(repository="main")


def point(vm: str, day: int, *, job: str = "nightly", name: str | None = None) -> KnownPoint:
    return KnownPoint(f"id-{vm}", name or vm, f"{vm}-{day}", job, day * DAY_S)


SOURCE = [point("web01", 1), point("web01", 2), point("web01", 3), point("db01", 2, job="hourly")]


def wanted(terms: CopyTerms, *vms: str, there: tuple[str, ...] = ()) -> Wanted:
    ids = {(f"id-{name.split('-')[0]}", name) for name in there}
    return wanted_copies(SOURCE, terms, vms, there=ids, now=NOW)


def names(found: Wanted) -> list[str]:
    return [one.point for one in found.points]


def test_the_newest_of_each_vm_is_copied_unless_the_target_has_it() -> None:
    assert names(wanted(NEWEST)) == ["db01-2", "web01-3"]
    assert names(wanted(NEWEST, there=("web01-3",))) == ["db01-2"]


def test_a_point_that_is_dated_ahead_keeps_no_later_one_from_being_copied() -> None:
    """A proxy made it whose clock was wrong."""
    ahead = [point("web01", 400), point("app01", 400)]
    there = {("id-web01", "web01-400")}

    found = wanted_copies([*SOURCE, *ahead], NEWEST, ["web01", "app01"], there=there, now=NOW)

    assert names(found) == ["app01-400", "web01-3"]


def test_all_that_are_missing_are_copied_oldest_first() -> None:
    assert names(wanted(ALL, there=("web01-2",))) == ["db01-2", "web01-1", "web01-3"]


def test_a_copy_whose_first_name_was_given_up_counts_as_one() -> None:
    assert names(wanted(NEWEST, there=("web01-3.2",))) == ["db01-2"]


def test_vms_are_chosen_by_pattern_and_by_the_jobs_that_made_the_points() -> None:
    assert names(wanted(NEWEST, "web*")) == ["web01-3"]
    assert names(wanted(NEWEST.model_copy(update={"jobs": ("hour*",)}))) == ["db01-2"]


def test_a_vm_goes_by_its_last_name() -> None:
    renamed = [point("web01", 1), point("web01", 2, name="shop01")]

    found = wanted_copies(renamed, ALL, ["shop*"], there=(), now=NOW)

    assert names(found) == ["web01-1", "web01-2"]
    assert wanted_copies(renamed, ALL, ["web01"], there=(), now=NOW).unknown == ("web01",)


def test_patterns_that_match_nothing_are_named() -> None:
    found = wanted(NEWEST, "web01", "nosuch", "x*")

    assert found.unknown == ("nosuch", "x*")
    assert nothing_matches("nosuch", "main") == "no restore point of a VM of that name is known in repository main"
    assert nothing_matches("x*", "main") == "no VM that the job copies matches 'x*' in repository main"


def test_what_the_jobs_retention_would_remove_at_once_is_not_copied() -> None:
    missing = [point("web01", day) for day in (1, 3, 4)]
    held = [HeldPoint("web01-2", 2 * DAY_S), HeldPoint("of another job", 9 * DAY_S, own=False)]

    kept = kept_copies(missing, held, Retention(points=2), now=5 * DAY_S, timezone="UTC")

    assert [one.point for one in kept] == ["web01-3", "web01-4"]
