"""Writes over a disk that doesn't change: what is read is what a plain file would hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.export.disk import Extent
from proxy_worker.export.overlay import Overlay, OverlayError

FOLDER = Path(tempfile.gettempdir())
SIZE = 5 * (64 << 10) + 777
CONTENT = bytes(number % 251 for number in range(SIZE))


class Still:
    """A disk of known content."""

    size_bytes = SIZE
    block_size = 64 << 10

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = CONTENT[offset : offset + len(view)]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        assert offset + length <= SIZE
        yield Extent(length, zero=True)


def ranges() -> st.SearchStrategy[tuple[int, int]]:
    """Offset and length of something within the disk."""
    return st.tuples(st.integers(0, SIZE - 1), st.integers(1, 200_000)).map(
        lambda one: (one[0], min(one[1], SIZE - one[0]))
    )


@given(st.lists(st.tuples(ranges(), st.sampled_from([None, b"\xaa", b"\x55"])), max_size=8), ranges())
def test_it_reads_as_a_file_that_was_written(
    writes: list[tuple[tuple[int, int], bytes | None]], read: tuple[int, int]
) -> None:
    expected = bytearray(CONTENT)
    with Overlay(Still(), FOLDER) as overlay:
        for (offset, length), fill in writes:
            if fill is None:
                overlay.zero(offset, length)
            else:
                overlay.write(offset, memoryview(fill * length))
            expected[offset : offset + length] = (fill or b"\0") * length
        offset, length = read
        found = bytearray(length)
        overlay.read_into(offset, memoryview(found))
        extents = list(overlay.extents(offset, length))

    assert found == expected[offset : offset + length]
    assert sum(extent.length for extent in extents) == length


def test_what_was_written_is_data_and_the_rest_is_as_below() -> None:
    with Overlay(Still(), FOLDER) as overlay:
        overlay.write(70_000, memoryview(b"x"))
        assert list(overlay.extents(0, SIZE)) == [
            Extent(64 << 10, zero=True),
            Extent(64 << 10, zero=False),
            Extent(SIZE - (128 << 10), zero=True),
        ]


def test_a_folder_that_keeps_no_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(OverlayError, match=r"missing: No such file or directory\. Name a folder"):
        Overlay(Still(), tmp_path / "missing")
