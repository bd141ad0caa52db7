"""Disks of VMs as targets: only what changed is written, zeros where they have to be, nothing without a lease."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, Extent, RepositoryReference, VmIdentity
from proxy_worker.mover.control import Control, Unattended, Verdict
from proxy_worker.mover.restore import restore_disk
from proxy_worker.mover.vm_disk import AreaMap, DiskSizeError
from proxy_worker.program.closing import Closing
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from tests.mover.disks import BLOCK, KEY, back_up, make_disk, new_vm, request

SIZE = 64 * BLOCK + 1000
PIECES = ((0, b"a" * 5000), (7 * BLOCK + 3, b"b" * BLOCK), (40 * BLOCK, b"c" * 100), (SIZE - 7, b"the end"))


@dataclass
class MemorySink(Closing):
    """A disk in memory that remembers what was written."""

    content: bytearray
    mode: TransportMode = TransportMode.NETWORK
    mode_reason: str = "test"
    written: list[tuple[int, int]] = field(default_factory=list)
    zeroed: list[tuple[int, int]] = field(default_factory=list)
    flushed: int = 0
    first: threading.Event = field(default_factory=threading.Event)

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def write_from(self, offset: int, view: memoryview) -> None:
        self.content[offset : offset + len(view)] = view
        self.written.append((offset, len(view)))
        self.first.set()

    def zero(self, offset: int, length: int) -> None:
        self.content[offset : offset + length] = bytes(length)
        self.zeroed.append((offset, length))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def point(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> tuple[Point, bytes]:
    """A restore point and what its disk holds."""
    path = make_disk(tmp_path_factory.mktemp("source") / "disk.raw", SIZE, PIECES)
    stored, _ = back_up(repository, path, request(new_vm()))
    return stored, path.read_bytes()


def restore(
    repository: Repository, point: Point, sink: MemorySink, control: Control | None = None, **how: object
) -> DiskReport:
    asked = DiskRestore.model_validate(
        {
            "repository": RepositoryReference(name="main", location="/backup", credential="main"),
            "vm": VmIdentity(vm_id=point.vm_id, name=point.vm_name),
            "run": point.run,
            "disk_key": KEY,
            "target": DiskAddress(nbd_uri="nbd://there"),
            **how,
        }
    )
    return restore_disk(repository, asked, control or Unattended(), sink).report


def test_a_disk_that_holds_anything_is_written_whole(repository: Repository, point: tuple[Point, bytes]) -> None:
    sink = MemorySink(bytearray(b"\xff" * SIZE))
    report = restore(repository, point[0], sink, full_write_reason="nobody knows what changed")

    assert (bytes(sink.content), sink.flushed) == (point[1], 1)
    assert (report.stored_bytes, report.unchanged_bytes, report.mode) == (SIZE, 0, TransportMode.NETWORK)
    assert report.full_read_reason == "nobody knows what changed"


def test_zeros_are_left_out_of_a_blank_disk(repository: Repository, point: tuple[Point, bytes]) -> None:
    sink = MemorySink(bytearray(SIZE))
    report = restore(repository, point[0], sink, target_is_blank=True)

    assert (bytes(sink.content), sink.zeroed) == (point[1], [])
    assert report.stored_bytes == sum(length for _, length in sink.written) < 8 * BLOCK


def test_only_blocks_that_areas_touch_are_written(repository: Repository, point: tuple[Point, bytes]) -> None:
    sink = MemorySink(bytearray(point[1]))
    areas = (
        Extent(offset=10 * BLOCK + 1, length=5),
        Extent(offset=40 * BLOCK - 1, length=2),
        Extent(offset=SIZE - 1, length=1),
    )
    for area in areas:
        sink.content[area.offset : area.offset + area.length] = b"\xff" * area.length

    report = restore(repository, point[0], sink, changed_areas=areas)

    assert bytes(sink.content) == point[1]
    touched = {10, 39, 40, SIZE // BLOCK}
    blocks = {
        at // BLOCK for offset, length in sink.written + sink.zeroed for at in range(offset, offset + length, BLOCK)
    }
    assert blocks == touched
    assert report.stored_bytes == 3 * BLOCK + SIZE % BLOCK
    assert report.unchanged_bytes == SIZE - report.stored_bytes


def test_nothing_changed_nothing_is_written(repository: Repository, point: tuple[Point, bytes]) -> None:
    sink = MemorySink(bytearray(point[1]))
    assert restore(repository, point[0], sink, changed_areas=()).stored_bytes == 0
    assert (sink.written, sink.zeroed, sink.flushed) == ([], [], 1)


def test_another_size_is_refused(repository: Repository, point: tuple[Point, bytes]) -> None:
    with pytest.raises(DiskSizeError, match="in the restore point"):
        restore(repository, point[0], MemorySink(bytearray(SIZE + 512)))


class _NoLease(Unattended):
    """A lease that is never proven, and then lost."""

    def __init__(self) -> None:
        self.asked = 0

    def verdict(self) -> Verdict:
        self.asked += 1
        return Verdict.PAUSE if self.asked < 20 else Verdict.STOP


def test_nothing_is_written_without_a_lease(repository: Repository, point: tuple[Point, bytes]) -> None:
    sink = MemorySink(bytearray(SIZE))
    with pytest.raises(CancelledError):
        restore(repository, point[0], sink, _NoLease())
    assert (sink.written, sink.zeroed, sink.flushed) == ([], [], 0)


class _TellsWritersFirst(Unattended):
    """Told to stop between two looks of the thread that watches: only those who write hear it."""

    def verdict(self) -> Verdict:
        watches = threading.current_thread() is threading.main_thread()
        return Verdict.RUN if watches else Verdict.STOP


def test_what_is_left_out_because_writers_were_stopped_is_never_called_done(
    repository: Repository, point: tuple[Point, bytes]
) -> None:
    sink = MemorySink(bytearray(SIZE))
    with pytest.raises(CancelledError):
        restore(repository, point[0], sink, _TellsWritersFirst())
    assert sink.flushed == 0


@given(
    areas=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 50)), max_size=8),
    offset=st.integers(0, 450),
    length=st.integers(1, 60),
)
def test_an_area_map_says_what_areas_touch(areas: list[tuple[int, int]], offset: int, length: int) -> None:
    apart: list[Extent] = []
    for start, size in sorted(areas):
        if not apart or start >= apart[-1].offset + apart[-1].length:
            apart.append(Extent(offset=start, length=size))
    touched = any(area.offset < offset + length and offset < area.offset + area.length for area in apart)
    assert AreaMap(apart).touches(offset, length) == touched
    assert not AreaMap(apart).everything
    assert AreaMap(None).everything
