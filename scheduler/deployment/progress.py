"""How a deployment tells what it does: a line a step, with what was found and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from proxy_worker.contract.errors import ProxyfleetError


class StepState(StrEnum):
    """What became of a step."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Step:
    """One step of a deployment."""

    proxy: str
    title: str
    """E.g. `install release`."""
    state: StepState = StepState.RUNNING
    detail: str = ""
    """What was found or done, for people."""
    seconds: float = 0.0


@dataclass
class Steps:
    """The steps of one proxy's deployment, in the order in which they were begun."""

    proxy: str
    tell: Callable[[Step], None]
    """Called when a step begins, has something to say, and ends."""
    all: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step for the length of the block."""
        step = Step(self.proxy, title)
        self.all.append(step)
        self.tell(step)
        began = time.monotonic()
        try:
            yield step
        except (ProxyfleetError, KeyboardInterrupt):
            step.state = StepState.FAILED
            raise
        else:
            step.state = StepState.DONE
        finally:
            step.seconds = time.monotonic() - began
            self.tell(step)

    def say(self, detail: str) -> None:
        """Change what the step that is under way has to say."""
        if self.all[-1].detail != detail:
            self.all[-1].detail = detail
            self.tell(self.all[-1])
