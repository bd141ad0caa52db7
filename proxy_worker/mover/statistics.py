"""Counting while a disk moves: bytes by fate, busy seconds by stage, and what they say of the bottleneck."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from proxy_worker.contract.figures import Bottleneck, StageTimes
from proxy_worker.contract.names import TransportMode

RATE_WINDOW_S = 5.0
"""The rate that progress shows is an average over this many seconds."""


@dataclass(slots=True)
class Counters:
    """Bytes of the disk by what became of them, and the seconds each stage was busy, summed over its threads."""

    processed_bytes: int = 0
    read_bytes: int = 0
    zero_bytes: int = 0
    unchanged_bytes: int = 0
    duplicate_bytes: int = 0
    stored_bytes: int = 0
    resumed_bytes: int = 0
    read_s: float = 0.0
    transform_s: float = 0.0
    deliver_s: float = 0.0

    def stages(self) -> StageTimes:
        """The busy seconds as a report carries them."""
        return StageTimes(
            read=round(self.read_s, 3), transform=round(self.transform_s, 3), deliver=round(self.deliver_s, 3)
        )


def name_bottleneck(stages: StageTimes, *, readers: int, transformers: int, mode: TransportMode) -> Bottleneck:
    """The stage whose threads were busiest, each stage's seconds divided by its threads.

    Reading counts as the network's when the disk is read over one.
    """
    shares = {
        Bottleneck.NETWORK if mode is TransportMode.NETWORK else Bottleneck.SOURCE: stages.read / readers,
        Bottleneck.PROXY: stages.transform / transformers,
        Bottleneck.TARGET: stages.deliver,
    }
    return max(shares, key=lambda stage: shares[stage])


class RateMeter:
    """Bytes per second over the last few seconds, from a monotonic clock's readings."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def rate(self, now_s: float, total_bytes: int) -> float:
        """Add a reading and return the rate; 0 until two readings are apart."""
        self._samples.append((now_s, total_bytes))
        while now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        first_s, first_bytes = self._samples[0]
        return (total_bytes - first_bytes) / (now_s - first_s) if now_s > first_s else 0.0
