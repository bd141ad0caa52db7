"""`make demo` tells its story to the end, leaves a fleet running when asked to, and nothing after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.processes import end_marked, marked
from tests.system.commands import BIN
from tests.system.live_fleet import wait_until

DEMO = [sys.executable, "-m", "ops.demo", "--flower-port", "0", "--state"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    end_marked(folder)


@pytest.mark.timeout(900)
def test_the_whole_story_and_a_fleet_that_runs_on(state: Path) -> None:
    told = subprocess.run([*DEMO, str(state), "--keep"], capture_output=True, text=True, check=False, timeout=800)

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("  equal  ") == 10
    assert "state           standby since" in told.stdout, "the replica after its failback"
    summary = told.stdout.partition("== Summary")[2]
    for figure in ("processed", "read", "transferred", "stored", "reduction", "rate", "bottleneck"):
        assert figure in summary
    disks = re.findall(r"^(full|incremental) +(\w+) +(scsi0:\d) +([\w-]+) ", summary, re.MULTILINE)
    assert len(disks) == 10
    assert {proxy for *_, proxy in disks} == {"primary-1", "primary-2", "remote-1"}
    assert re.search(r"Flower: http://127\.0\.0\.1:\d+", summary)

    environment = os.environ | {"SCHEDULER_CONFIG": str(state / "scheduler.toml")}
    status = subprocess.run(
        [BIN / "scheduler", "status"], env=environment, capture_output=True, text=True, check=True
    )
    assert "primary-1" in status.stdout

    subprocess.run([*DEMO, str(state), "--stop"], check=True, timeout=180)
    assert marked(state) == []


@pytest.mark.timeout(600)
def test_ctrl_c_in_the_middle_of_a_backup_leaves_no_process(state: Path) -> None:
    output = state.with_name("output")
    with output.open("w") as file:
        demo = subprocess.Popen(
            [*DEMO, str(state)], stdout=file, stderr=subprocess.STDOUT, process_group=0, env=dict(os.environ)
        )
    try:

        def backing_up() -> bool:
            assert demo.poll() is None, output.read_text()
            return "disks done" in output.read_text()

        wait_until(backing_up, "the backup to run", timeout_s=300)
        os.killpg(demo.pid, signal.SIGINT)  # what a terminal does: the foreground group, which services aren't in
        assert demo.wait(180) == 130
    finally:
        demo.kill()
        demo.wait()

    assert "nothing is left running" in output.read_text()
    assert marked(state) == []
