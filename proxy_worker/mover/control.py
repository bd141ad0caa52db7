"""Who a data mover answers to: a lease in the ledger, a terminal, or nobody."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress


class Verdict(StrEnum):
    """What the mover should do now."""

    RUN = "run"
    PAUSE = "pause"
    """Store and write nothing until the verdict changes."""
    STOP = "stop"
    """Make what is done durable, checkpoint it, and end with `CancelledError`."""


class Control(Protocol):
    """Called from the thread that moves the disk."""

    def report(self, progress: DiskProgress) -> None:
        """Hear how far it is, about once a second."""

    def checkpoint(self, sealed: str) -> None:
        """Keep the state to resume from; replaces the last. Only the repository's write key opens it."""

    def verdict(self) -> Verdict:
        """Say whether to go on. Asked many times a second: must answer at once."""


class Unattended:
    """A control that lets the work run and listens to nothing."""

    def report(self, progress: DiskProgress) -> None:
        """Ignore it."""

    def checkpoint(self, sealed: str) -> None:
        """Ignore it."""

    def verdict(self) -> Verdict:
        """Run."""
        return Verdict.RUN


def stopped() -> CancelledError:
    """What a backup ends with when the verdict is to stop."""
    return CancelledError(
        "the disk's backup was stopped", why="its run was cancelled, or its proxy hands its tasks back"
    )
