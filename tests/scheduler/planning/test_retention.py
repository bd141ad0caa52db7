"""Which restore points stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planning.retention import CLOCK_DIFFERENCE_S, HeldPoint, Retention, judge, words

NOW = datetime(2026, 11, 22, 22, tzinfo=UTC)


def daily(count: int, **also: bool) -> list[HeldPoint]:
    """One point a day, `day-0` the newest."""
    return [HeldPoint(f"day-{age}", (NOW - timedelta(days=age)).timestamp(), **also) for age in range(count)]


def kept(points: list[HeldPoint], retention: Retention, timezone: str = "UTC") -> list[str]:
    verdicts = judge(points, retention, now=NOW.timestamp(), timezone=timezone)
    return [verdict.point.point for verdict in verdicts if verdict.kept]


def test_seven_stay_unless_told() -> None:
    assert kept(daily(10), Retention()) == [f"day-{age}" for age in range(7)]


def test_days_and_points_add_up() -> None:
    assert kept(daily(10), Retention(points=2, days=4)) == [f"day-{age}" for age in range(5)]
    assert kept(daily(10)[5:], Retention(points=2, days=4)) == ["day-5", "day-6"]


def test_the_newest_of_each_week_month_and_year() -> None:
    """22 November 2026 is a Sunday: its week began six days before."""
    retention = Retention(points=0, weekly=3, monthly=2, yearly=2)
    assert kept(daily(400), retention) == ["day-0", "day-7", "day-14", "day-22", "day-326"]


def test_weeks_without_points_do_not_count() -> None:
    points = [point for point in daily(60) if point.point in {"day-0", "day-40", "day-59"}]
    assert kept(points, Retention(points=0, weekly=3)) == ["day-0", "day-40", "day-59"]


def test_weeks_are_those_of_the_time_zone() -> None:
    """In Auckland it is Monday already."""
    points = [
        HeldPoint("late", NOW.timestamp()),
        HeldPoint("early", (NOW - timedelta(hours=14)).timestamp()),
    ]
    assert kept(points, Retention(points=0, weekly=1), "UTC") == ["late"]
    assert kept(points, Retention(points=0, weekly=2), "Pacific/Auckland") == ["late", "early"]


def test_never_below_the_minimum() -> None:
    old = daily(40)[30:]
    assert kept(old, Retention(points=0, days=7, minimum=3)) == ["day-30", "day-31", "day-32"]


def test_points_whose_time_is_yet_to_come_take_nobodys_place() -> None:
    """A proxy whose clock was a year ahead made them; what is made under a right one must not go for them."""
    ahead = [HeldPoint(f"ahead-{number}", (NOW + timedelta(days=365 + number)).timestamp()) for number in range(7)]
    retention = Retention(points=2, weekly=1, yearly=1, minimum=2)

    assert kept([*ahead, *daily(4)], retention) == [*(held.point for held in reversed(ahead)), "day-0", "day-1"]
    verdict = judge(ahead[:1], retention, now=NOW.timestamp())[0]
    assert verdict.why == "its time is yet to come"


def test_damaged_points_take_no_sound_ones_place() -> None:
    """Else the last points that can be restored would go for some that can't."""
    points = [replace(point, damaged=number in {1, 2}) for number, point in enumerate(daily(6))]

    assert kept(points, Retention(points=3)) == ["day-0", "day-1", "day-2", "day-3", "day-4"]
    assert kept(points, Retention(points=0, minimum=2)) == ["day-0", "day-1", "day-3"]
    why = {verdict.point.point: verdict.why for verdict in judge(points, Retention(points=3), now=NOW.timestamp())}
    assert why["day-3"] == "newest 2 of 3 that aren't damaged"


def test_clocks_that_differ_a_little_keep_no_more() -> None:
    soon = HeldPoint("soon", NOW.timestamp() + CLOCK_DIFFERENCE_S)
    assert kept([soon, *daily(3)], Retention(points=2)) == ["soon", "day-0"]


def test_every_verdict_says_why() -> None:
    verdicts = judge(daily(3), Retention(points=1, weekly=1), now=NOW.timestamp())
    assert [(verdict.kept, verdict.why) for verdict in verdicts[:2]] == [
        (True, "newest 1 of 1, weekly 1 of 1"),
        (False, "older than what is kept: the newest 1, 1 weekly"),
    ]
    assert words(Retention(points=0, minimum=2)) == "at least 2"


HELD = st.builds(
    HeldPoint,
    point=st.uuids().map(str),
    created_at=st.integers(0, 4 * 365 * 24).map(lambda hours: NOW.timestamp() - hours * 3600.0),
    pinned=st.booleans(),
    own=st.booleans(),
)
POLICY = st.builds(
    Retention,
    points=st.integers(0, 9),
    days=st.none() | st.integers(1, 500),
    weekly=st.integers(0, 6),
    monthly=st.integers(0, 6),
    yearly=st.integers(0, 3),
    minimum=st.integers(1, 5),
)
POINTS = st.lists(HELD, max_size=40, unique_by=lambda held: held.point)


@given(POINTS, POLICY)
def test_nothing_that_must_stay_is_given_up(points: list[HeldPoint], retention: Retention) -> None:
    verdicts = judge(points, retention, now=NOW.timestamp())
    given_up = [verdict.point for verdict in verdicts if not verdict.kept]

    assert len(verdicts) == len(points)
    assert not any(held.pinned or not held.own for held in given_up)
    own = [held for held in points if held.own]
    newest = sorted(own, key=lambda held: (held.created_at, held.point), reverse=True)
    assert not set(given_up) & set(newest[: max(retention.minimum, retention.points)])
    if retention.days is not None:
        assert all(held.created_at < NOW.timestamp() - retention.days * 86_400 for held in given_up)


@given(POINTS, POLICY)
def test_asked_again_it_gives_up_nothing_more(points: list[HeldPoint], retention: Retention) -> None:
    left = [verdict.point for verdict in judge(points, retention, now=NOW.timestamp()) if verdict.kept]
    assert all(verdict.kept for verdict in judge(left, retention, now=NOW.timestamp()))


@given(POINTS, POLICY)
def test_no_more_is_kept_than_the_rules_can_want(points: list[HeldPoint], retention: Retention) -> None:
    verdicts = judge(points, retention, now=NOW.timestamp())
    wanted = [verdict for verdict in verdicts if verdict.kept and verdict.point.own and not verdict.point.pinned]
    recent = sum(
        retention.days is not None and held.created_at >= NOW.timestamp() - retention.days * 86_400
        for held in points
    )
    most = retention.points + retention.weekly + retention.monthly + retention.yearly + recent
    assert len(wanted) <= most + retention.minimum


@given(POINTS, POLICY, st.data())
def test_with_damaged_points_stays_what_would_stay_if_they_were_whole_or_gone(
    points: list[HeldPoint], retention: Retention, data: st.DataObject
) -> None:
    judged = [replace(point, damaged=data.draw(st.booleans())) for point in points]
    sound = [point for point in judged if not point.damaged]

    assert set(kept(judged, retention)) == {*kept(points, retention), *kept(sound, retention)}


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"points": -1}, {"days": 0}, {"hourly": 1}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retention.model_validate(wrong)
