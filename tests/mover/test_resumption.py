"""A backup that is stopped goes on where it was durable, and one that is paused stores nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent, VmIdentity
from proxy_worker.mover import backup
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.mover.control import Unattended, Verdict
from proxy_worker.repository.repository import Repository
from proxy_worker.transport.named import open_path
from proxy_worker.transport.source import DiskSource, DiskUnreadableError
from tests.mover.disks import (
    BLOCK,
    SEGMENT,
    RecordingControl,
    back_up,
    commit,
    data_of,
    make_disk,
    new_vm,
    request,
    restore,
)

SEGMENTS = 4


class WatchedSource:
    """A real source whose reading can be held up at an offset, or made to fail there; keeps what was asked for."""

    def __init__(self, source: DiskSource, *, hold_at: int | None = None, fail_at: int | None = None) -> None:
        self._source = source
        self._hold_at = hold_at
        self._fail_at = fail_at
        self.held = threading.Event()
        self.release = threading.Event()
        self.offsets: list[int] = []
        self.size_bytes = source.size_bytes
        self.mode = TransportMode.DIRECT_STORAGE
        self.mode_reason = "a test"
        self.parallel_reads = source.parallel_reads

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        return self._source.allocated(offset, length)

    def read_into(self, offset: int, view: memoryview) -> None:
        self.offsets.append(offset)
        if self._hold_at is not None and offset >= self._hold_at:
            self.held.set()
            assert self.release.wait(120)
        if self._fail_at is not None and offset >= self._fail_at:
            raise DiskUnreadableError("disk.raw can't be read", offset=offset, why="Input/output error")
        self._source.read_into(offset, view)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> WatchedSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StopsWhenHeld(RecordingControl):
    """Says stop once the source is held up and everything before has had time to be delivered."""

    def __init__(self, source: WatchedSource) -> None:
        super().__init__()
        self._source = source
        self._polls = 0

    def verdict(self) -> Verdict:
        if self._source.held.is_set():
            self._polls += 1
        if self._polls < 40:
            return Verdict.RUN
        self._source.release.set()
        return Verdict.STOP


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "POLL_S", 0.01)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with some random data in each of its segments."""
    pieces = [
        (index * SEGMENT + place, os.urandom(3 * BLOCK)) for index in range(SEGMENTS) for place in (0, 99 * BLOCK)
    ]
    return make_disk(tmp_path / "disk.raw", SEGMENTS * SEGMENT - 777, pieces)


@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_a_stopped_backup_goes_on_at_its_first_segment_that_is_not_durable(
    repository: Repository, disk: Path, segment: int
) -> None:
    asked = request(new_vm())
    source = WatchedSource(open_path(str(disk)), hold_at=segment * SEGMENT)
    control = StopsWhenHeld(source)
    with source, pytest.raises(CancelledError):
        back_up_disk(source, repository, asked, fence=1, control=control)

    assert bool(control.checkpoints) == (segment > 0)
    again = WatchedSource(open_path(str(disk)))
    checkpoint = control.checkpoints[-1] if control.checkpoints else None
    with again:
        result = back_up_disk(again, repository, asked, fence=2, checkpoint=checkpoint, control=Unattended())

    assert result.report.resumed_bytes == segment * SEGMENT
    assert min(again.offsets) == segment * SEGMENT
    point = commit(repository, asked, result.sealed_result, fence=2)
    restore(repository, point, disk.with_suffix(".back"))
    assert list(data_of(disk.with_suffix(".back"))) == list(data_of(disk))


def test_a_source_that_fails_in_mid_read_leaves_a_checkpoint(repository: Repository, disk: Path) -> None:
    asked = request(new_vm())
    source = WatchedSource(open_path(str(disk)), fail_at=2 * SEGMENT, hold_at=2 * SEGMENT)
    control = RecordingControl()
    threading.Timer(0.5, source.release.set).start()

    with source, pytest.raises(DiskUnreadableError, match="Input/output error"):
        back_up_disk(source, repository, asked, fence=1, control=control)

    with open_path(str(disk)) as again:
        result = back_up_disk(
            again, repository, asked, fence=2, checkpoint=control.checkpoints[-1], control=Unattended()
        )
    assert result.report.resumed_bytes == 2 * SEGMENT


def test_a_disk_that_shrinks_in_mid_read_is_named(repository: Repository, disk: Path) -> None:
    source = WatchedSource(open_path(str(disk)), hold_at=2 * SEGMENT)

    def shrink() -> None:
        assert source.held.wait(120)
        os.truncate(disk, SEGMENT)
        source.release.set()

    thread = threading.Thread(target=shrink)
    thread.start()
    with source, pytest.raises(DiskUnreadableError, match=r"disk\.raw shrank"):
        back_up_disk(source, repository, request(new_vm()), fence=1, control=Unattended())
    thread.join()


@pytest.mark.parametrize("what", ["garbage", "another run's"])
def test_a_checkpoint_that_cannot_be_used_starts_the_disk_over(
    repository: Repository, disk: Path, what: str
) -> None:
    asked = request(new_vm())
    checkpoint = "AAAA"
    if what == "another run's":
        source = WatchedSource(open_path(str(disk)), hold_at=SEGMENT)
        control = StopsWhenHeld(source)
        with source, pytest.raises(CancelledError):
            back_up_disk(source, repository, request(new_vm()), fence=1, control=control)
        checkpoint = control.checkpoints[-1]

    with open_path(str(disk)) as source_again:
        result = back_up_disk(source_again, repository, asked, fence=1, checkpoint=checkpoint, control=Unattended())

    assert result.report.resumed_bytes == 0
    point = commit(repository, asked, result.sealed_result)
    restore(repository, point, disk.with_suffix(".back"))
    assert list(data_of(disk.with_suffix(".back"))) == list(data_of(disk))


class PausesOnce(Unattended):
    """Pauses for some polls and looks at what is stored meanwhile."""

    def __init__(self, polls: int) -> None:
        self._left = polls
        self.paused_reports: list[DiskProgress] = []

    def report(self, progress: DiskProgress) -> None:
        if progress.paused:
            self.paused_reports.append(progress)

    def verdict(self) -> Verdict:
        self._left -= 1
        return Verdict.PAUSE if self._left > 0 else Verdict.RUN


def test_a_pause_stores_nothing_says_so_and_ends(
    repository: Repository, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "REPORT_EVERY_S", 0.02)
    control = PausesOnce(polls=20)

    point, report = back_up(repository, disk, request(new_vm()), control)

    assert len(control.paused_reports) > 2
    assert {progress.stored_bytes for progress in control.paused_reports} == {0}
    assert report.stored_bytes > 0
    restore(repository, point, disk.with_suffix(".back"))
    assert list(data_of(disk.with_suffix(".back"))) == list(data_of(disk))


def test_durable_segments_are_checkpointed_while_the_disk_is_read(
    repository: Repository, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.mover.checkpoint.FORCED_AFTER_S", 0.05)
    source = WatchedSource(open_path(str(disk)), hold_at=3 * SEGMENT)
    control = RecordingControl()

    def release() -> None:
        assert control.checkpointed.wait(120), "no checkpoint was made while reading went on"
        source.release.set()

    thread = threading.Thread(target=release)
    thread.start()
    back_up(repository, source, request(new_vm()), control)
    thread.join()

    assert control.checkpoints


def test_configuration_files_are_kept_in_the_point(repository: Repository, disk: Path) -> None:
    asked = request(VmIdentity(vm_id="with-vmx", name="with vmx"))
    files = [
        ConfigurationFile("web.vmx", b'displayName = "web"\n'),
        ConfigurationFile("web.nvram", bytes(BLOCK + 9)),
    ]
    with open_path(str(disk)) as source:
        result = back_up_disk(source, repository, asked, fence=1, control=Unattended(), configuration=files)
    point = commit(repository, asked, result.sealed_result)

    with repository.reader(point) as reader:
        kept = {file.name: reader.read_file(file) for file in point.configuration}
    assert kept == {file.name: file.content for file in files}
