"""Figures as people read them: with units, three digits, local time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from proxy_worker.program.units import size

__all__ = ["ago", "clock", "compared", "duration", "iso", "moment", "plural", "rate", "ratio", "share", "size"]
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_EXACT_BELOW_S = 10
_TELLING_RATIO = 1.05


def rate(bytes_per_second: float | None) -> str:
    """`412 MiB/s`; a dash when it isn't known."""
    return "-" if bytes_per_second is None else f"{size(bytes_per_second)}/s"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `1 min 23 s`, `2 h 5 min`, `3 d 4 h`; a dash when it isn't known."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < _EXACT_BELOW_S:
        return f"{seconds:.1f} s"
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{int(seconds) // _MINUTE_S} min {int(seconds) % _MINUTE_S} s"
    if seconds < _DAY_S:
        return f"{int(seconds) // _HOUR_S} h {int(seconds) % _HOUR_S // _MINUTE_S} min"
    return f"{int(seconds) // _DAY_S} d {int(seconds) % _DAY_S // _HOUR_S} h"


def clock(seconds: float | None) -> str:
    """Time to go, in as few columns as can be: `0:07`, `12:30`, `3:05:00`; a dash when it isn't known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(max(0.0, seconds)), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def compared(part: float, whole: float, name: str) -> str:
    """`95.5 MiB (10.5x less than read)`; the figure alone where there is nothing to compare."""
    ratio = whole / part if whole > 0 and part > 0 else 1.0
    return f"{size(part)} ({ratio:.1f}x less than {name})" if ratio >= _TELLING_RATIO else size(part)


def moment(unix_seconds: float | None) -> str:
    """Local time, to the second; a dash for none."""
    if unix_seconds is None:
        return "-"
    return datetime.fromtimestamp(unix_seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(unix_seconds: float | None) -> str | None:
    """UTC as JSON has it: `2026-11-22T19:01:02Z`."""
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(unix_seconds: float | None) -> str:
    """How long since then."""
    return "-" if unix_seconds is None else f"{duration(time.time() - unix_seconds)} ago"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 disk`, `2 disks`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def ratio(whole: float, part: float) -> str:
    """`10.5 : 1`; a dash where there is nothing to compare."""
    return f"{whole / part:.1f} : 1" if whole > 0 and part > 0 else "-"


def share(part: float, whole: float) -> str:
    """`37%`; a dash of nothing."""
    return f"{100 * part / whole:.0f}%" if whole > 0 else "-"
