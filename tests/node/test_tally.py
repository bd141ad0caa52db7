"""Counting across processes that share memory: nothing is lost with a process, nothing counted twice."""

from __future__ import annotations

import os
import signal

from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.node.tally import DiskTally, Tally
from tests.simulators.proxies import DISK_BYTES, disk_report

READ = ("bytes", TaskKind.DISK_BACKUP, "read")
TASKS = ("tasks", TaskKind.DISK_BACKUP, "done")


def progress(read_bytes: int) -> DiskProgress:
    return DiskProgress(
        size_bytes=DISK_BYTES, processed_bytes=read_bytes, read_bytes=read_bytes, stored_bytes=0, rate=1
    )


def test_what_a_process_counted_stays_when_it_is_killed() -> None:
    tally = Tally(2)
    child = os.fork()
    if child == 0:
        DiskTally(tally, TaskKind.DISK_BACKUP, resumed=False).note(progress(700))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert tally.total(READ) == 700


def test_a_disk_counts_while_it_goes_on_and_as_its_report_says_in_the_end() -> None:
    tally = Tally(1)
    task = DiskTally(tally, TaskKind.DISK_BACKUP, resumed=False)
    task.note(progress(100))
    task.note(progress(250))
    assert tally.total(READ) == 250
    task.end("done", DiskBackupResult(report=disk_report(), sealed_result=""))
    assert (tally.total(READ), tally.total(TASKS)) == (DISK_BYTES, 1)


def test_what_an_earlier_attempt_counted_is_not_counted_again() -> None:
    tally = Tally(1)
    resumed = DiskTally(tally, TaskKind.DISK_BACKUP, resumed=True)
    resumed.note(progress(500))
    resumed.note(progress(600))
    resumed.end("handed back", None)
    assert tally.total(READ) == 100
    assert tally.total(("tasks", TaskKind.DISK_BACKUP, "handed back")) == 1
