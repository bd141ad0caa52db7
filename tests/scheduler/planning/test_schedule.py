"""Cron schedules in time zones: the next start, missed starts, days that are an hour short or long."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planning.schedule import COUNTED_AT_MOST, Schedule, ScheduleError

HOUR = 3600.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_next_start_is_meant_in_the_time_zone() -> None:
    schedule = Schedule("0 22 * * *", "Europe/Berlin")

    assert schedule.next_after(at("2026-07-01T12:00")) == at("2026-07-01T20:00")
    assert schedule.next_after(at("2026-12-01T12:00")) == at("2026-12-01T21:00")


def test_an_hour_that_a_day_skips_or_repeats_is_run_once() -> None:
    schedule = Schedule("30 2 * * *", "Europe/Berlin")

    assert schedule.next_after(at("2026-03-28T12:00")) == at("2026-03-29T01:00")
    assert schedule.next_after(at("2026-03-29T01:00")) == at("2026-03-30T00:30")
    assert schedule.next_after(at("2026-10-24T12:00")) == at("2026-10-25T00:30")
    assert schedule.next_after(at("2026-10-25T00:30")) == at("2026-10-26T01:30")


def test_starts_that_nobody_acted_upon_are_made_up_for_once_and_counted() -> None:
    daily = Schedule("0 22 * * *")

    due = daily.due(after=at("2026-11-01T22:00"), now=at("2026-11-05T08:00"))

    assert due is not None
    assert (due.at, due.missed) == (at("2026-11-04T22:00"), 2)
    assert daily.due(after=at("2026-11-04T22:00"), now=at("2026-11-05T08:00")) is None
    every_minute = Schedule("* * * * *").due(after=at("2026-01-01T00:00"), now=at("2026-11-05T08:00"))
    assert every_minute is not None
    assert every_minute.missed == COUNTED_AT_MOST


@given(
    st.sampled_from(["*/7 * * * *", "0 22 * * 1-5", "30 2 * * *", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(int(at("2026-01-01T00:00")), int(at("2027-12-31T00:00"))),
    st.integers(0, 30 * 86400),
)
def test_a_start_is_due_exactly_when_the_next_one_has_come(cron: str, zone: str, after: int, later: int) -> None:
    schedule = Schedule(cron, zone)
    following = schedule.next_after(after)

    assert following is not None
    assert following > after
    assert (schedule.due(after, after + later) is not None) == (following <= after + later)


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("every day", "UTC", "schedule 'every day': Wrong number of fields"),
        ("61 * * * *", "UTC", "schedule '61 \\* \\* \\* \\*'"),
        ("0 0 * * *", "Mars/Olympus", "time zone 'Mars/Olympus': there is none of that name"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(cron: str, zone: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(cron, zone)
