"""What the figures of a task say of it."""

from __future__ import annotations

import pytest

from proxy_worker.contract.figures import Bottleneck, StageTimes
from proxy_worker.contract.names import TransportMode
from proxy_worker.mover.statistics import RateMeter, name_bottleneck

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK


@pytest.mark.parametrize(
    ("stages", "mode", "bottleneck"),
    [
        (StageTimes(read=8, transform=6, deliver=3), DIRECT, Bottleneck.SOURCE),
        (StageTimes(read=8, transform=6, deliver=3), NETWORK, Bottleneck.NETWORK),
        (StageTimes(read=2, transform=9, deliver=4), DIRECT, Bottleneck.PROXY),
        (StageTimes(read=2, transform=9, deliver=5), NETWORK, Bottleneck.TARGET),
    ],
)
def test_the_busiest_stage_for_its_threads_is_the_bottleneck(
    stages: StageTimes, mode: TransportMode, bottleneck: Bottleneck
) -> None:
    assert name_bottleneck(stages, readers=2, transformers=2, mode=mode) is bottleneck


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter()

    assert meter.rate(100.0, 0) == 0
    assert meter.rate(102.0, 2_000) == 1_000
    for second in range(103, 120):
        rate = meter.rate(float(second), 2_000 + (second - 102) * 50)
    assert rate == pytest.approx(50)
