"""Upgrading proxies one after the other, so that enough of them always run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.deployment.errors import TooFewRunningError
from scheduler.deployment.fleet_watch import FleetWatch


@dataclass(frozen=True)
class Keeping:
    """How many proxies are to be kept running."""

    watch: FleetWatch
    least: int

    def guard(self, name: str) -> Callable[[], None]:
        """What is asked before `name`, which runs, is stopped; it raises `TooFewRunningError`."""

        def before_stopping() -> None:
            others = self.watch.running() - 1
            if others < self.least:
                raise TooFewRunningError(
                    f"proxy {name!r} is left as it is",
                    why=f"without it {others} would run, and {self.least} are to be kept running",
                    remedy="Start others, or keep fewer with --keep.",
                )

        return before_stopping


def least_kept(watch: FleetWatch, keep: int | None) -> int:
    """How many are kept: as asked for, or else all that run but one."""
    return max(0, watch.running() - 1) if keep is None else keep
