"""A progress line on a terminal."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Final, Self

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.contract.errors import CancelledError, StoreError
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.mover.control import Verdict
from proxy_worker.program.commands import INTERRUPTED
from proxy_worker.program.units import size

_BAR_CELLS: Final = 24


class TerminalControl:
    """A control that shows progress on stderr while that is a terminal, and stops at Ctrl-C or SIGTERM.

    Signals count inside its `with` block, which ends with the exit code of an interrupt then. They become a
    verdict, for an exception between any two instructions could leave threads behind that nobody stops; and what
    waits for a repository is given up. A second one ends the process at once; whatever it leaves is what a crash
    may leave.
    """

    def __init__(self, *openings: Opening) -> None:
        self._openings = openings
        self._shown = sys.stderr.isatty()
        self._verdict = Verdict.RUN
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if isinstance(error, CancelledError):
            print("interrupted: nothing is left half done", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        if isinstance(error, StoreError) and self._verdict is Verdict.STOP:
            print(f"interrupted while it waited: {error}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._verdict is Verdict.STOP:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._verdict = Verdict.STOP
        for opening in self._openings:
            opening.give_up()

    def report(self, progress: DiskProgress) -> None:
        """Redraw the line."""
        if not self._shown:
            return
        share = progress.processed_bytes / progress.size_bytes if progress.size_bytes else 1.0
        filled = int(share * _BAR_CELLS)
        bar = "█" * filled + "░" * (_BAR_CELLS - filled)
        left_s = (progress.size_bytes - progress.processed_bytes) / progress.rate if progress.rate else 0
        minutes, seconds = divmod(int(left_s), 60)
        print(
            f"\r\x1b[K{bar} {share:4.0%}  {size(progress.processed_bytes)} of {size(progress.size_bytes)}"
            f"  {size(progress.rate)}/s  {minutes}:{seconds:02} left",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def checkpoint(self, sealed: str) -> None:
        """Ignore it: a command that was interrupted starts over."""

    def verdict(self) -> Verdict:
        """Run, until a signal says stop."""
        return self._verdict


def pace(report: DiskReport) -> str:
    """How long it took, e.g. `5.1 s (823.5 MiB/s), bottleneck: proxy`."""
    rate = report.size_bytes / report.duration_seconds if report.duration_seconds else 0.0
    return f"{report.duration_seconds:.1f} s ({size(rate)}/s), bottleneck: {report.bottleneck}"
