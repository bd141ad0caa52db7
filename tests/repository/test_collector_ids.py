"""Sets of ids that don't fit into memory forget none: what a collector doesn't find in one, it deletes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.repository import collector_ids
from proxy_worker.repository.collector_ids import PREFIXES, IdSet, part_count, without_zeros
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID

SOME = st.lists(st.integers(min_value=0, max_value=40), max_size=120)
"""A segment: ids by number, of which many are zeros."""


def id_of(number: int) -> bytes:
    """32 bytes, spread over all parts; that of 0 is of zeros, that of 1 begins with some."""
    return ZERO_ID if number == 0 else (number // 2 * 3277 % PREFIXES).to_bytes(2, "big") + bytes([number] * 30)


def parts_of(ids: IdSet) -> set[bytes]:
    return set().union(*(ids.part(number) for number in range(ids.parts)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    segments=st.lists(SOME, max_size=12),
    parts=st.sampled_from([1, 2, 16]),
    held_ids=st.integers(min_value=1, max_value=60),
    repeated_ids=st.integers(min_value=0, max_value=20),
)
def test_what_was_added_is_in_it_once(
    tmp_path_factory: pytest.TempPathFactory,
    segments: list[list[int]],
    parts: int,
    held_ids: int,
    repeated_ids: int,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(collector_ids, "_HELD_BYTES", held_ids * ID_BYTES)
        patched.setattr(collector_ids, "_REPEATED_BYTES", repeated_ids * ID_BYTES)
        ids = IdSet(tmp_path_factory.mktemp("ids") / "set", parts)
        for segment in segments:
            ids.add(b"".join(map(id_of, segment)))

        assert parts_of(ids) == {id_of(number) for segment in segments for number in segment} - {ZERO_ID}


@given(
    runs=st.lists(
        st.tuples(st.integers(min_value=0, max_value=3), st.sampled_from((1, 63, 64, 511, 512, 513))), max_size=8
    )
)
def test_ids_of_zeros_are_left_out_and_no_others(runs: list[tuple[int, int]]) -> None:
    ids = [id_of(number) for number, count in runs for _ in range(count)]

    assert without_zeros(b"".join(ids)) == b"".join(one for one in ids if one != ZERO_ID)


def test_disks_of_zeros_and_of_more_ids_than_memory_holds(tmp_path: Path) -> None:
    """As large as in production: more than is held at once, in few parts."""
    ids = IdSet(tmp_path / "set", part_count(100_000))
    expected = {number.to_bytes(4, "big") * 8 for number in range(1, 2**32, 2**32 // 100_000)}
    joined = b"".join(expected)
    for _ in range(6):
        ids.add(bytes(4096 * ID_BYTES) + joined)

    assert parts_of(ids) == expected
