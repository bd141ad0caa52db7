"""A pace that changes: what is moved in any stretch of time, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.mover.pacing import BURST_S, Pacing, Use


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def moved(pacing: Pacing, clock: Clock, seconds: float, piece: int, every_s: float = 0.2) -> int:
    """Bytes that a mover moves in that time which looks that often and moves a piece whenever it may."""
    count = 0
    end_s = clock.now_s + seconds
    while clock.now_s < end_s:
        if pacing.ready():
            pacing.spend(piece)
            count += piece
        else:
            clock.now_s += every_s
    return count


def test_without_a_limit_it_is_always_ready() -> None:
    pacing = Pacing()
    pacing.spend(1 << 40)

    assert pacing.ready()


def test_a_rate_of_nothing_stands_still() -> None:
    clock = Clock()

    assert moved(Pacing(0, clock=clock), clock, 100, piece=1) == 0


@given(rate=st.integers(10_000, 10_000_000), piece=st.integers(1_000, 4_000_000))
def test_over_time_the_rate_is_kept_and_used(rate: int, piece: int) -> None:
    clock = Clock()
    seconds = max(30, 40 * piece / rate)

    count = moved(Pacing(rate, clock=clock), clock, seconds, piece=max(piece, rate // 1000))

    assert count <= rate * (seconds + BURST_S + 0.2) + 2 * max(piece, rate // 1000)
    assert count >= 0.95 * rate * seconds


def test_a_new_rate_counts_from_its_moment_on() -> None:
    clock = Clock()
    pacing = Pacing(1_000_000, clock=clock)
    moved(pacing, clock, 10, piece=1000)

    pacing.keep_to(100_000)

    assert moved(pacing, clock, 10, piece=1000) == pytest.approx(1_000_000, rel=0.06)


def test_rest_is_not_saved_up() -> None:
    clock = Clock()
    pacing = Pacing(1_000_000, clock=clock)
    clock.now_s += 3600

    assert moved(pacing, clock, 1, piece=10_000) < 1_500_000


def test_use_tells_what_was_spent_and_whether_more_would_have_been() -> None:
    clock = Clock()
    pacing = Pacing(1_000_000, clock=clock)
    pacing.spend(5)
    clock.now_s += 2
    assert pacing.use() == Use(2, 5, waited=False)

    pacing.spend(10_000_000)
    assert not pacing.ready()
    assert pacing.use().waited
    assert not pacing.use().waited
