"""`scheduler` and `proxy-worker` that believe in another time of day, in leases of seconds, in another contract.

`python -m tests.surviving.stand_in scheduler serve …`. The time of day is shifted for all Python code of the
process and its children; that leases don't hang on it is the point.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

CLOCK: Final = "STAND_IN_CLOCK"
"""Environment variable: a file that says by how many seconds the clock is ahead; read again each second."""
HURRIED: Final = "STAND_IN_HURRIED"
"""Environment variable: whether leases last seconds."""
CONTRACT: Final = "STAND_IN_CONTRACT"
"""Environment variable: the version of the contract that a proxy says it speaks."""


def _shift_clock(file: Path) -> None:
    true_time = time.time
    ahead_s, read_at_s = 0.0, 0.0

    def shifted_time() -> float:
        nonlocal ahead_s, read_at_s
        if abs(time.monotonic() - read_at_s) > 1:
            read_at_s = time.monotonic()
            ahead_s = float(file.read_text() or 0)
        return true_time() + ahead_s

    time.time = shifted_time


def _main() -> None:
    _shift_clock(Path(os.environ[CLOCK]))
    # Only now: what is imported from here on takes the shifted clock.
    if sys.argv.pop(1) == "scheduler":
        import scheduler.service  # noqa: PLC0415
        from scheduler.cli import main  # noqa: PLC0415
        from tests.tasks.fleet import QUICK  # noqa: PLC0415

        if os.environ.get(HURRIED):
            scheduler.service.Timings = lambda: QUICK  # type: ignore[assignment,misc]
    else:
        import proxy_worker.node.joining  # noqa: PLC0415
        from proxy_worker.cli import main  # noqa: PLC0415

        if version := os.environ.get(CONTRACT):
            proxy_worker.node.joining.CONTRACT_VERSION = int(version)  # type: ignore[misc]
    main()


if __name__ == "__main__":
    _main()
