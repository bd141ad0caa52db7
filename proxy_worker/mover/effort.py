"""How hard to compress where a job leaves it to the proxy (`auto`): as hard as its processors have time for.

They have time when something else is slower: the link to the repository, a traffic rule, the source. Then fewer
bytes cost nothing. When they are the slowest, less is tried, so that the disk is done sooner.
"""

from __future__ import annotations

import logging
from typing import Final

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.codec import Compressor

log = logging.getLogger(__name__)

COST_S_PER_GIB: Final = {
    CompressionLevel.FAST: 1.4,
    CompressionLevel.OPTIMAL: 1.9,
    CompressionLevel.HIGH: 2.7,
    CompressionLevel.EXTREME: 15.0,
}
"""Seconds of a processor on the reference disk; only their ratios count."""
LOOK_EVERY_S: Final = 2.0
_BUSY: Final = 0.85
"""Above this share of their time, processors count as the slowest part."""


def level_for(level: CompressionLevel, busy: float) -> CompressionLevel:
    """The hardest level for which processors would have time, that at this level were `busy` (0 to 1)."""
    levels = list(COST_S_PER_GIB)
    affordable = [one for one in levels if busy * COST_S_PER_GIB[one] <= _BUSY * COST_S_PER_GIB[level]]
    if affordable:
        return affordable[-1]
    return levels[max(0, levels.index(level) - 1)]


class Effort:
    """Looks now and then how busy the transforming threads were, and changes the level that they compress with."""

    def __init__(self, compressor: Compressor, level: CompressionLevel, threads: int, *, now_s: float) -> None:
        """`level` as the job has it: any but `auto` is left alone."""
        self._compressor = compressor
        self._automatic = level is CompressionLevel.AUTO
        self._threads = threads
        self._looked_s = now_s
        self._seen_busy_s = 0.0

    def look(self, now_s: float, busy_s: float) -> None:
        """`busy_s`: for how long they were busy so far, summed over all of them."""
        passed_s = now_s - self._looked_s
        if not self._automatic or passed_s < LOOK_EVERY_S:
            return
        before, busy = self._compressor.level, (busy_s - self._seen_busy_s) / (passed_s * self._threads)
        self._compressor.level = level_for(before, busy)
        self._looked_s, self._seen_busy_s = now_s, busy_s
        if self._compressor.level is not before:
            log.info("compresses with level %s: threads were busy %.0f%%", self._compressor.level, busy * 100)
