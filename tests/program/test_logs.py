"""Logs that machines read: one object a line, and what it is about in fields of fixed names."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from proxy_worker.program.logs import LogFormat, about, handler, learn


@pytest.fixture
def log() -> logging.Logger:
    return logging.Logger("scheduler.test")


def lines(log: logging.Logger, form: LogFormat) -> io.StringIO:
    to = handler(form, "%(levelname)s %(message)s")
    assert isinstance(to, logging.StreamHandler)
    seen = io.StringIO()
    to.setStream(seen)
    log.addHandler(to)
    return seen


def test_a_line_is_an_object_with_what_it_is_about(log: logging.Logger) -> None:
    seen = lines(log, LogFormat.JSON)
    log.warning("disk %s failed\nbadly", "scsi0:0", extra={"run": "run-1", "vm": "web01"})
    told = json.loads(seen.getvalue())
    assert seen.getvalue().count("\n") == 1
    assert told["time"].endswith("+00:00")
    del told["time"]
    assert told == {
        "level": "warning",
        "logger": "scheduler.test",
        "process": "MainProcess",
        "message": "disk scsi0:0 failed\nbadly",
        "run": "run-1",
        "vm": "web01",
    }


def test_all_that_a_process_logs_during_a_task_says_which_from_every_thread(log: logging.Logger) -> None:
    seen = lines(log, LogFormat.JSON)
    with about(task="task-1", run="run-1"):
        learn(vm="web01")
        thread = threading.Thread(target=log.info, args=("reading",))
        thread.start()
        thread.join()
    log.info("idle")
    first, second = map(json.loads, seen.getvalue().splitlines())
    assert (first["task"], first["run"], first["vm"]) == ("task-1", "run-1", "web01")
    assert not {"task", "run", "vm"} & second.keys()


def test_people_find_the_same_at_the_end_of_a_line_and_a_traceback_below_it(log: logging.Logger) -> None:
    seen = lines(log, LogFormat.TEXT)
    try:
        int("no")
    except ValueError:
        log.exception("went wrong", extra={"task": "task-1"})
    log.info("nothing in particular")
    first, second, *_, last = seen.getvalue().splitlines()
    assert first == "ERROR went wrong [task=task-1]"
    assert second == "Traceback (most recent call last):"
    assert last == "INFO nothing in particular"
