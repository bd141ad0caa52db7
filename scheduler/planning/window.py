"""When jobs may run: hours of the week in a time zone. Times are Unix seconds.

Hours are what clocks on the wall show: where a day skips or repeats an hour, so does the window.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_HOUR_MINUTES: Final = 60
_DAY_MINUTES: Final = 24 * _HOUR_MINUTES
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
_SPAN: Final = re.compile(r"(?:(?P<days>[A-Za-z,-]+) )?(?P<begin>\d{1,2}:\d\d)-(?P<end>\d{1,2}:\d\d)")


def _span(text: str) -> str:
    parse_span(text)
    return text


def _timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"expected a time zone such as 'Europe/Berlin' or 'UTC', got {text!r}") from error
    return text


class Window(BaseModel):
    """Hours of the week."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    hours: Annotated[tuple[Annotated[str, AfterValidator(_span)], ...], Field(min_length=1)]
    """Spans such as `"Mon-Fri 20:00-06:00"`, `"Sat,Sun 0:00-24:00"` or, for every day, `"22:00-5:00"`. One that
    ends before it begins goes on to the next day."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """The time zone that the hours are meant in."""

    def is_open(self, moment: float) -> bool:
        """Whether something may begin then."""
        local = datetime.fromtimestamp(moment, ZoneInfo(self.timezone))
        minute = local.weekday() * _DAY_MINUTES + local.hour * _HOUR_MINUTES + local.minute
        now_or_from_last_week = (minute, minute + _WEEK_MINUTES)
        return any(begin <= at < end for begin, end in _spans(self.hours) for at in now_or_from_last_week)

    def next_open(self, moment: float) -> float:
        """The first time from `moment` on at which something may begin."""
        if self.is_open(moment):
            return moment
        zone = ZoneInfo(self.timezone)
        local = datetime.fromtimestamp(moment, zone)
        monday = datetime(local.year, local.month, local.day) - timedelta(days=local.weekday())  # noqa: DTZ001  wall
        begins = (
            (monday + timedelta(minutes=begin + week * _WEEK_MINUTES)).replace(tzinfo=zone).timestamp()
            for begin, _ in _spans(self.hours)
            for week in (0, 1)
        )
        return min(begin for begin in begins if begin > moment)

    def __str__(self) -> str:
        """As a person writes it."""
        return f"{', '.join(self.hours)} ({self.timezone})"


@lru_cache(maxsize=1024)
def _spans(hours: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(span for text in hours for span in parse_span(text))


def parse_span(text: str) -> tuple[tuple[int, int], ...]:
    """The spans of a text, in minutes since Monday 0:00; ends may be beyond Sunday. Raises `ValueError`."""
    expected = f"expected hours such as 'Mon-Fri 20:00-06:00' or '22:00-5:00', got {text!r}"
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(expected)
    begin, end = (_minute(match[key], expected) for key in ("begin", "end"))
    if begin in {_DAY_MINUTES, end}:
        raise ValueError(expected)
    length = end - begin if end > begin else end + _DAY_MINUTES - begin
    starts = (day * _DAY_MINUTES + begin for day in _days(match["days"], expected))
    return tuple((start, start + length) for start in starts)


def _minute(text: str, expected: str) -> int:
    hours, minutes = map(int, text.split(":"))
    minute = hours * _HOUR_MINUTES + minutes
    if minutes >= _HOUR_MINUTES or minute > _DAY_MINUTES:
        raise ValueError(expected)
    return minute


def _days(text: str | None, expected: str) -> list[int]:
    if text is None:
        return list(range(7))
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = (_DAYS.index(name.capitalize()) for name in (first, last or first))
        except ValueError as error:
            raise ValueError(expected) from error
        days += [(begin + offset) % 7 for offset in range((end - begin) % 7 + 1)]
    return days
