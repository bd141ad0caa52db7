"""How hard to compress where a job leaves it to the proxy (`auto`): as hard as its processors have time for.

They have time when something else is slower: the link to the repository, a traffic rule, the source. Then fewer
bytes cost nothing. When they are the slowest, less is tried, so that the disk is done sooner. Packs that wait to be
sent say sooner than idle threads that the link is slower: so many fit into a store's queue.
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
LOOK_EVERY_S: Final = 0.25
_WAITING: Final = 2
"""From so many packs on that aren't at the store yet, it is what is slow."""
_BUSY: Final = 0.85
"""Above this share of their time, processors count as the slowest part."""


def level_for(level: CompressionLevel, busy: float, waiting: int) -> CompressionLevel:
    """One harder while several packs are `waiting`, otherwise the hardest that processors have time for.

    While one pack is on its way, no less hard than now: the link isn't idle.

    `busy`: how much of their time (0 to 1) this level took.
    """
    levels = list(COST_S_PER_GIB)
    if waiting >= _WAITING:
        return levels[min(levels.index(level) + 1, len(levels) - 1)]
    affordable = [one for one in levels if busy * COST_S_PER_GIB[one] <= _BUSY * COST_S_PER_GIB[level]]
    if affordable and (not waiting or affordable[-1] in levels[levels.index(level) :]):
        return affordable[-1]
    return level if waiting else levels[max(0, levels.index(level) - 1)]


class Effort:
    """Looks now and then how busy the transforming threads were, and changes the level that they compress with."""

    def __init__(self, compressor: Compressor, level: CompressionLevel, threads: int, *, now_s: float) -> None:
        """`level` as the job has it: any but `auto` is left alone."""
        self._compressor = compressor
        self._automatic = level is CompressionLevel.AUTO
        self._threads = threads
        self._looked_s = now_s
        self._seen_busy_s = 0.0

    def look(self, now_s: float, busy_s: float, waiting: int) -> None:
        """`busy_s`: for how long they were busy so far, summed over all of them; `waiting`: packs not sent yet."""
        passed_s = now_s - self._looked_s
        if not self._automatic or passed_s < LOOK_EVERY_S:
            return
        before, busy = self._compressor.level, (busy_s - self._seen_busy_s) / (passed_s * self._threads)
        self._compressor.level = level_for(before, busy, waiting)
        self._looked_s, self._seen_busy_s = now_s, busy_s
        if self._compressor.level is not before:
            level = self._compressor.level
            log.info("compresses with level %s: threads busy %.0f%%, %d packs wait", level, busy * 100, waiting)
