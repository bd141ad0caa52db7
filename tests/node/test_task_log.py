"""What is left of a task whose process died, and what is made of its death."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.node.fitness import why_unfit
from proxy_worker.node.task_log import Coroner, TaskLog, forget_logs, last_words

PROGRESS = DiskProgress(size_bytes=100, processed_bytes=37, read_bytes=37, stored_bytes=9, rate=2**20)


def _die_at_work(state_dir: Path) -> None:
    child = os.fork()
    if child == 0:
        with TaskLog(state_dir, "../task", 3) as task_log:
            logging.getLogger("mover").error("about to end")
            task_log.note(PROGRESS)
            os.abort()
    os.waitpid(child, 0)


def test_last_words_of_a_dead_process_are_its_log_its_memory_and_its_stack(tmp_path: Path) -> None:
    _die_at_work(tmp_path)

    words = last_words(tmp_path, "../task", 3)

    assert "about to end" in words[0]
    assert "37% 1 MiB/s" in words[1]
    assert "MiB in memory" in words[1]
    assert any("Fatal Python error: Aborted" in line for line in words)
    assert last_words(tmp_path, "../task", 3) == (), "they are told once"


def test_nothing_is_left_of_a_task_that_ends_or_of_a_former_life(tmp_path: Path) -> None:
    with TaskLog(tmp_path, "t", 1):
        assert len(list((tmp_path / "tasks").iterdir())) == 1
    assert list((tmp_path / "tasks").iterdir()) == []
    _die_at_work(tmp_path)
    forget_logs(tmp_path)
    assert last_words(tmp_path, "../task", 3) == ()


def test_a_death_is_named_by_signal_or_code_and_with_the_memory_it_had() -> None:
    coroner = Coroner()
    lost = "Worker exited prematurely: {} Job: 3."

    assert coroner.cause(lost.format("signal 9 (SIGKILL)"), ["x", "37%, 812 MiB in memory"]).startswith(
        "was killed by SIGKILL with 812 MiB in memory"
    )
    assert coroner.cause(lost.format("exitcode 3"), ()).startswith("ended with exit code 3")
    assert coroner.cause("?", ()).startswith("died")


def test_a_proxy_is_fit_unless_its_clock_or_its_disk_is_wrong(tmp_path: Path) -> None:
    assert why_unfit(tmp_path, 1000.0, lambda: 1000.0 + 3599) == ""
    assert why_unfit(tmp_path, 1000.0 + 3599, lambda: 1000.0) == ""
    assert why_unfit(tmp_path, 1000.0, lambda: 1000.0 + 7200).startswith("its clock is 2.0 h ahead of Redis'")
    assert why_unfit(tmp_path, 1000.0 + 7200, lambda: 1000.0).startswith("its clock is 2.0 h behind Redis'")
    assert why_unfit(tmp_path / "gone", None).endswith("No such file or directory")
