"""`make demo-vsphere` tells its story to the end, says what is simulated, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.processes import end_marked, marked

DEMO = [sys.executable, "-m", "ops.demo_vsphere", "--flower-port", "0", "--state"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    end_marked(folder)


@pytest.mark.timeout(900)
def test_the_whole_story(state: Path) -> None:
    told = subprocess.run([*DEMO, str(state)], capture_output=True, text=True, check=False, timeout=800)

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("  equal  ") == 4
    assert told.stdout.startswith("The vCenter and VMware's VDDK in this demo are simulated")
    summary = told.stdout.partition("== Summary (vCenter and VDDK simulated)")[2]
    assert {"direct_storage", "network"} <= set(summary.split())
    assert "Snapshots left in the vCenter: none." in summary
    assert marked(state) == []
