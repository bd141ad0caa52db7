"""Whether this proxy can do any task at all: one that can't takes nothing new, instead of failing one by one.

Tasks that it has go on. It is asked at every beat of the heart; the fleet sees the answer beside the proxy's name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy_worker.node.obeyed import CLOCK_TOLERANCE_S

LEAST_FREE_BYTES: Final = 16 << 20
"""What the state folder needs for what was obeyed, task logs and the caches of indexes."""
_MIB: Final = 1 << 20


def why_unfit(state_dir: Path, server_time_s: float | None, clock: Callable[[], float] = time.time) -> str:
    """Why this proxy can do nothing now; empty when it can. `server_time_s` is the ledger's Unix time, if known."""
    try:
        room = os.statvfs(state_dir)
    except OSError as error:
        return f"its state folder {state_dir} can't be used: {error.strerror}"
    if room.f_flag & os.ST_RDONLY:
        return f"its state folder {state_dir} is on a read-only file system"
    free = room.f_bavail * room.f_frsize
    if free < LEAST_FREE_BYTES:
        needed = f"and {LEAST_FREE_BYTES // _MIB} are needed"
        return f"{free // _MIB} MiB are free for its state folder {state_dir}, {needed}"
    ahead_s = clock() - server_time_s if server_time_s is not None else 0.0
    if ahead_s > CLOCK_TOLERANCE_S:
        return f"its clock is {ahead_s / 3600:.1f} h ahead of Redis', and what is signed for now has expired by it"
    if ahead_s < -CLOCK_TOLERANCE_S:
        return f"its clock is {-ahead_s / 3600:.1f} h behind Redis', and restore points would be dated by it"
    return ""
