"""The safety margins of the ledger, in one place. The scheduler writes them there; proxies follow them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy_worker.contract.subjects import Frozen

Seconds = Annotated[float, Field(gt=0)]


class Timings(Frozen):
    """How long things may take before somebody draws a conclusion. All in seconds."""

    lease_s: Seconds = 30.0
    """How long a holder may go without renewing. It renews each third, and pauses after two thirds."""
    dispatch_deadline_s: Seconds = 15.0
    """How long a published message may stay unclaimed before the task is ready again."""
    heartbeat_s: Seconds = 2.0
    proxy_timeout_s: Seconds = 15.0
    """After so long without a heartbeat a proxy counts as away and gets no tasks."""
    reap_grace_s: Annotated[float, Field(ge=0)] = 20.0
    """How long after the server's own restart no lease runs out, so that holders can find it again."""
    tick_s: Seconds = 2.0
    """At most this much is charged to every lease and deadline per reaping pass, however long ago the last was."""
    progress_s: Seconds = 1.0
    """How often a holder with news renews, between the thirds of its lease."""
    max_lost_attempts: Annotated[int, Field(ge=1)] = 10
    """How many holders of a task may vanish in a row, without a checkpoint, before the task fails by itself."""

    max_deaths: Annotated[int, Field(ge=1)] = 3
    """How many processes may die in a row over a task, without a checkpoint, before it is quarantined: it fails,
    and isn't tried again by itself."""

    @property
    def pause_s(self) -> float:
        """How long after the last proof of its lease a holder stops writing."""
        return self.lease_s * 2 / 3


DEFAULT_TIMINGS = Timings()
