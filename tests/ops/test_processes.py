"""The demo's processes end with it: when it is done, when it is interrupted, when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.demo.errors import DemoError
from ops.demo.processes import MARK, Supervisor, end_marked, marked

SLEEPER = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; "
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True); time.sleep(600)"
)
DEMO = f"""
import sys, time
from pathlib import Path
from ops.demo.processes import Supervisor
supervisor = Supervisor(Path(sys.argv[1]))
supervisor.start("parent", [sys.executable, "-c", {PARENT!r}])
time.sleep(600)
"""


def test_a_service_and_what_it_started_elsewhere_end_with_the_supervisor(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, term_timeout_s=5)
    supervisor.start("parent", [sys.executable, "-c", PARENT])
    _wait(lambda: len(marked(tmp_path)) == 2)

    supervisor.stop()

    assert marked(tmp_path) == []


def test_a_service_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, term_timeout_s=0.2)
    service = supervisor.start("stubborn", [sys.executable, "-c", STUBBORN])
    _wait(lambda: "ready" in service.log.read_text())

    supervisor.stop()

    assert service.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_demo_itself_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    demo = subprocess.Popen([sys.executable, "-c", DEMO, str(tmp_path)], env=os.environ | {"PYTHONPATH": "."})
    _wait(lambda: len(marked(tmp_path)) == 2)

    demo.send_signal(number)
    demo.wait()

    _wait(lambda: marked(tmp_path) == [])


def test_a_kept_fleet_runs_on_until_it_is_stopped(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    service = supervisor.start("sleeper", [sys.executable, "-c", SLEEPER])
    _wait(lambda: len(marked(tmp_path)) == 1)

    supervisor.keep()
    assert service.process.poll() is None
    assert end_marked(tmp_path, term_timeout_s=5) == 1

    assert marked(tmp_path) == []


def test_other_processes_are_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], env=os.environ | {MARK: str(tmp_path / "another")}
    )
    try:
        end_marked(tmp_path)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_service_that_ends_by_itself_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        supervisor.start("broken", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
        with pytest.raises(DemoError, match=r"broken ended with code 1(?s:.*)no such thing"):
            supervisor.wait_until("it to be ready", lambda: False, timeout_s=120)
    finally:
        supervisor.stop()


def _wait(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
