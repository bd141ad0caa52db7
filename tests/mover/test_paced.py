"""Movers keep to a pace, can be stopped while they wait for it, and move the same bytes."""

from __future__ import annotations

import filecmp
import itertools
import random
from pathlib import Path

import pytest

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.control import Unattended
from proxy_worker.mover.pacing import Pacing
from proxy_worker.mover.restore import restore_disk
from proxy_worker.repository.repository import Repository
from proxy_worker.transport.named import open_path
from tests.mover.disks import KEY, RecordingControl, commit, make_disk, new_vm, request

SIZE = 16 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.raw", SIZE, [(0, random.Random(7).randbytes(SIZE))])


def paced(bytes_per_s: float) -> Pacing:
    """On a clock that goes on by a tenth of a second whenever it is looked at."""
    ticks = itertools.count()
    return Pacing(bytes_per_s, clock=lambda: next(ticks) / 10)


def test_what_is_stored_and_read_again_is_counted_and_the_same(
    repository: Repository, disk: Path, tmp_path: Path
) -> None:
    asked, storing, reading = request(new_vm()), paced(8 << 20), paced(8 << 20)
    with open_path(str(disk)) as source:
        result = back_up_disk(source, repository, asked, fence=1, control=Unattended(), pacing=storing)
    point = commit(repository, asked, result.sealed_result)
    back = DiskRestore(
        repository=RepositoryReference(name="main", location="/backup", credential="main"),
        vm=asked.vm,
        run=point.run,
        disk_key=KEY,
        target_path=str(tmp_path / "restored.raw"),
    )
    restore_disk(repository, back, Unattended(), pacing=reading)

    assert filecmp.cmp(disk, tmp_path / "restored.raw", shallow=False)
    assert SIZE <= storing.use().spent_bytes <= result.report.stored_bytes
    assert reading.use().spent_bytes >= SIZE


class StoppedOnceWaiting(RecordingControl):
    """Stops the mover after it has told a second time how far it is."""

    def report(self, progress: DiskProgress) -> None:
        super().report(progress)
        self.stop = len(self.reports) > 1


def test_a_backup_that_may_send_nothing_waits_reports_and_can_be_stopped(
    repository: Repository, disk: Path
) -> None:
    control = StoppedOnceWaiting()
    with open_path(str(disk)) as source, pytest.raises(CancelledError):
        back_up_disk(source, repository, request(new_vm()), fence=1, control=control, pacing=Pacing(0))

    assert [report.paused for report in control.reports] == [False, False]
