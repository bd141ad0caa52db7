"""How hard `auto` compresses, by how busy processors are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import CompressionLevel as Level
from proxy_worker.mover.effort import COST_S_PER_GIB, LOOK_EVERY_S, Effort, level_for
from proxy_worker.repository.codec import Codec, Compressor, Decompressor

LEVELS = list(COST_S_PER_GIB)


def test_idle_processors_compress_harder_and_saturated_ones_less() -> None:
    assert level_for(Level.OPTIMAL, 0.05, 0) is Level.EXTREME
    assert level_for(Level.OPTIMAL, 0.5, 0) is Level.HIGH
    assert level_for(Level.OPTIMAL, 0.8, 0) is Level.OPTIMAL
    assert level_for(Level.OPTIMAL, 1.0, 0) is Level.FAST
    assert level_for(Level.EXTREME, 1.0, 0) is Level.HIGH
    assert level_for(Level.FAST, 1.0, 0) is Level.FAST


def test_while_packs_wait_to_be_sent_blocks_are_compressed_harder_and_while_one_is_sent_no_less() -> None:
    assert level_for(Level.FAST, 1.0, 2) is Level.OPTIMAL
    assert level_for(Level.HIGH, 1.0, 5) is Level.EXTREME
    assert level_for(Level.EXTREME, 1.0, 5) is Level.EXTREME
    assert level_for(Level.EXTREME, 1.0, 1) is Level.EXTREME
    assert level_for(Level.OPTIMAL, 1.0, 1) is Level.OPTIMAL
    assert level_for(Level.OPTIMAL, 0.1, 1) is Level.EXTREME


@given(st.floats(0.01, 20))
def test_a_steady_load_settles_on_a_level(load_s_per_gib: float) -> None:
    """Of a way that takes a GiB in so many seconds: more than a step a look, and back and forth, would be noise."""

    def busy(level: Level) -> float:
        return min(1.0, COST_S_PER_GIB[level] / load_s_per_gib)

    seen = [Level.OPTIMAL]
    for _ in range(len(LEVELS)):
        seen.append(level_for(seen[-1], busy(seen[-1]), 0))
    assert level_for(seen[-1], busy(seen[-1]), 0) is seen[-1]
    affordable = [level for level in LEVELS if busy(level) <= 0.85]
    assert seen[-1] is (affordable[-1] if affordable else Level.FAST)


def test_only_auto_changes_what_a_writer_compresses_with_and_blocks_of_all_levels_open() -> None:
    block = b"the same words over and over, " * 4096
    for level, expected in ((Level.AUTO, Level.EXTREME), (Level.FAST, Level.FAST)):
        compressor = Compressor(level)
        first = compressor.compress(block)
        effort = Effort(compressor, level, threads=2, now_s=0.0)
        effort.look(LOOK_EVERY_S / 2, 0.0, 0)
        assert compressor.level is (Level.OPTIMAL if level is Level.AUTO else level)
        effort.look(LOOK_EVERY_S, 0.01, 0)
        assert compressor.level is expected
        for codec, data in (first, compressor.compress(block)):
            assert codec is Codec.ZSTD
            assert Decompressor().decompress(data, len(block)) == block
