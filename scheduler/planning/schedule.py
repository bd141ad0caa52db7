"""When a job is due: cron expressions in a time zone.

A day that skips an hour runs what falls into it right after; a day that repeats an hour runs it once (cronsim
follows Debian's cron). Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from proxy_worker.contract.errors import ConfigurationError

COUNTED_AT_MOST = 100


class ScheduleError(ConfigurationError):
    """A cron expression or a time zone is not valid."""


@dataclass(frozen=True)
class Due:
    """A start that has come."""

    at: float
    """The latest start that has come."""
    missed: int
    """Starts before it that nobody acted upon, counted up to `COUNTED_AT_MOST`; one run makes up for all."""


@dataclass(frozen=True)
class Schedule:
    """A cron expression of five fields and the IANA time zone it is meant in."""

    cron: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        """Raise `ScheduleError` unless both are valid."""
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ScheduleError(
                f"time zone {self.timezone!r}", why="there is none of that name", remedy="Use e.g. Europe/Berlin."
            ) from error
        try:
            next(CronSim(self.cron, datetime.now(zone)))
        except CronSimError as error:
            raise ScheduleError(
                f"schedule {self.cron!r}", why=str(error), remedy="Use five fields, e.g. 0 22 * * *."
            ) from error
        except StopIteration as error:
            raise ScheduleError(f"schedule {self.cron!r}", why="such a day never comes") from error

    def next_after(self, moment: float) -> float | None:
        """The first start later than `moment`; None when none comes within cronsim's horizon of decades."""
        return self._step(moment, reverse=False)

    def due(self, after: float, now: float) -> Due | None:
        """The start to act upon at `now`, where starts up to `after` have been acted upon."""
        latest = self._step(now + 1, reverse=True)
        if latest is None or latest <= after:
            return None
        missed = 0
        earlier = self.next_after(after)
        while earlier is not None and earlier < latest and missed < COUNTED_AT_MOST:
            missed += 1
            earlier = self.next_after(earlier)
        return Due(latest, missed)

    def _step(self, moment: float, *, reverse: bool) -> float | None:
        zone = ZoneInfo(self.timezone)
        start = datetime.fromtimestamp(moment, zone)
        for candidate in CronSim(self.cron, start, reverse=reverse):
            found = candidate.timestamp()
            if (found < moment) if reverse else (found > moment):
                return found
            if abs(found - moment) > timedelta(days=366 * 50).total_seconds():
                return None
        return None
