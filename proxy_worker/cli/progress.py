"""A progress line on a terminal, and sizes as people read them."""

from __future__ import annotations

import sys
from typing import Final

from proxy_worker.contract.outcome import DiskProgress, DiskReport
from proxy_worker.mover.control import Verdict

_BAR_CELLS: Final = 24
_UNIT: Final = 1024


def size(count: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least one, e.g. `1.4 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < _UNIT:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= _UNIT
    return f"{count:.1f} TiB"


class TerminalControl:
    """A control that shows progress on stderr while that is a terminal; Ctrl-C is what stops it."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

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
        """Run."""
        return Verdict.RUN

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def pace(report: DiskReport) -> str:
    """How long it took, e.g. `5.1 s (823.5 MiB/s), bottleneck: proxy`."""
    rate = report.size_bytes / report.duration_seconds if report.duration_seconds else 0.0
    return f"{report.duration_seconds:.1f} s ({size(rate)}/s), bottleneck: {report.bottleneck}"
