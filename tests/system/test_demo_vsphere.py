"""`make demo-vsphere` tells its story to the end, says what is simulated, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.processes import end_marked, marked
from tests.system.live_fleet import wait_until

DEMO = [sys.executable, "-m", "ops.demo_vsphere", "--flower-port", "0", "--state"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    end_marked(folder)


@pytest.mark.timeout(400)
def test_the_whole_story(state: Path) -> None:
    told = subprocess.run([*DEMO, str(state)], capture_output=True, text=True, check=False, timeout=360)

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("  equal  ") == 4
    assert told.stdout.startswith("The vCenter and VMware's VDDK in this demo are simulated")
    summary = told.stdout.partition("== Summary (vCenter and VDDK simulated)")[2]
    assert {"direct_storage", "network"} <= set(summary.split())
    assert "Snapshots left in the vCenter: none." in summary
    assert marked(state) == []


def test_ctrl_c_in_the_middle_of_a_backup_leaves_no_process(state: Path) -> None:
    output = state.with_name("output")
    with output.open("w") as file:
        demo = subprocess.Popen(
            [*DEMO, str(state)], stdout=file, stderr=subprocess.STDOUT, process_group=0, env=dict(os.environ)
        )
    try:

        def backing_up() -> bool:
            assert demo.poll() is None, output.read_text()
            return "db01 scsi0:0: " in output.read_text()

        wait_until(backing_up, "the backup to run", timeout_s=200)
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(90) == 130
    finally:
        demo.kill()
        demo.wait()

    assert "nothing is left running" in output.read_text()
    assert marked(state) == []
