"""Windows: what is open when, in which time zone, and across nights, weeks and changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scheduler.planning.window import Window

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        ("20:00-6:00", "2026-11-23T20:00", True),
        ("20:00-6:00", "2026-11-24T05:59", True),
        ("20:00-6:00", "2026-11-24T06:00", False),
        ("Mon-Fri 20:00-6:00", "2026-11-28T05:00", True),
        ("Mon-Fri 20:00-6:00", "2026-11-28T21:00", False),
        ("Sun 22:00-4:00", "2026-11-23T03:00", True),
        ("Sat,Sun 0:00-24:00", "2026-11-29T23:59", True),
        ("Fri-Mon 8:00-9:00", "2026-11-22T08:30", True),
        ("Fri-Mon 8:00-9:00", "2026-11-24T08:30", False),
    ],
)
def test_hours_of_the_week(hours: str, moment: str, is_open: bool) -> None:
    assert Window(hours=(hours,)).is_open(at(moment)) is is_open
    assert Window(hours=(hours,), timezone=BERLIN).is_open(at(moment, BERLIN)) is is_open


@given(
    st.floats(at("2026-03-01T00:00"), at("2026-12-01T00:00")),
    st.sampled_from([("22:00-5:00",), ("Mon 1:30-3:00", "Sat,Sun 0:00-24:00"), ("Wed-Thu 12:00-12:30",)]),
    st.sampled_from(["UTC", BERLIN, "America/St_Johns"]),
)
def test_the_next_opening_is_open_and_nothing_before_it_is(
    moment: float, hours: tuple[str, ...], zone: str
) -> None:
    window = Window(hours=hours, timezone=zone)
    opens = window.next_open(moment)
    assert moment <= opens <= moment + timedelta(days=8).total_seconds()
    assert window.is_open(opens) or datetime.fromtimestamp(opens, UTC).month == 3, "the hour that a day skips"
    if opens > moment:
        assert not window.is_open(moment)
        assert not window.is_open((moment + opens) / 2)


@pytest.mark.parametrize(
    "hours", ["25:00-6:00", "22-5", "Mun 1:00-2:00", "5:00-5:00", "24:00-1:00", "1:60-2:00", ""]
)
def test_what_is_no_span_is_refused(hours: str) -> None:
    with pytest.raises(ValidationError, match="expected hours such as"):
        Window(hours=(hours,))
