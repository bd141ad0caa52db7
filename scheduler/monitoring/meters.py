"""What the service counts while it works; everything else is read from where it is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

from scheduler.vcenters.steps import StepCall, StepOutcome

_TURN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """Counters of one life of a scheduler, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._turns = Histogram(
            "proxyfleet_turn_duration_seconds",
            "How long a turn of the scheduler took: collecting, recording, advancing, dispatching.",
            buckets=_TURN_BUCKETS,
            registry=self.registry,
        )
        self._steps = Counter(
            "proxyfleet_vcenter_steps",
            "Steps at vCenters that have ended: snapshots, their removal, scans and the like.",
            ["vcenter", "step", "outcome"],
            registry=self.registry,
        )
        self._called: dict[str, StepCall] = {}
        self.waiting: Mapping[str, int] = {}
        """How many tasks the service left at its last turn, by reason; replaced whole."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Time a turn, whether it succeeds or not."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._turns.observe(time.perf_counter() - began)

    def step_started(self, call: StepCall) -> None:
        """Remember what a step is, until its outcome comes."""
        self._called[call.step_id] = call

    def steps_ended(self, outcomes: Iterable[StepOutcome]) -> None:
        """Count steps by their vCenter, kind and outcome."""
        for outcome in outcomes:
            call = self._called.pop(outcome.step_id, None)
            if call is not None:
                word = "failed" if outcome.failure is not None else "done"
                self._steps.labels(call.account.name, call.kind, word).inc()
