"""One life at a time, proven by a lock that children inherit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_worker.node.life import ProxyRunsError, StateFolderError, begin_life

HOLD = """
import os, sys, pathlib
from proxy_worker.node.life import begin_life
with begin_life("proxy-1", pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        print("held", flush=True)
        sys.stdin.read()
    os._exit(0)
"""


def test_instance_and_lock_stay_and_lives_differ(tmp_path: Path) -> None:
    with begin_life("proxy-1", tmp_path / "new/state") as first:
        pass
    with begin_life("proxy-1", tmp_path / "new/state") as second:
        pass

    assert (first.instance_id, first.lock) == (second.instance_id, second.lock)
    assert first.life != second.life


def test_copied_state_folder_has_the_instance_but_not_the_lock(tmp_path: Path) -> None:
    with begin_life("proxy-1", tmp_path / "a") as original:
        (tmp_path / "b").mkdir()
        (tmp_path / "b/instance-id").write_bytes((tmp_path / "a/instance-id").read_bytes())
        with begin_life("proxy-1", tmp_path / "b") as clone:
            assert clone.instance_id == original.instance_id
            assert clone.lock != original.lock


def test_second_life_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    running = f"a proxy already runs with it, started as process {os.getpid()}"
    with (
        begin_life("proxy-1", tmp_path),
        pytest.raises(ProxyRunsError, match=re.escape(running)),
        begin_life("proxy-1", tmp_path, timeout_s=0.1),
    ):
        pass


def test_life_goes_on_while_a_child_of_it_does(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"held\n"
        parent.wait()
        with pytest.raises(ProxyRunsError), begin_life("proxy-1", tmp_path, timeout_s=0.1):
            pass
    with begin_life("proxy-1", tmp_path):
        pass


def test_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateFolderError, match="Set state_dir to a writable folder"),
        begin_life("proxy-1", tmp_path / "file/state"),
    ):
        pass
