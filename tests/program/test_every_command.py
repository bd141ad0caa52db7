"""Every command starts where it is installed, also where no test has loaded anything before it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_worker.cli import COMMANDS as PROXY_COMMANDS
from scheduler.cli import COMMANDS as SCHEDULER_COMMANDS
from tests.system.commands import run_installed

COMMANDS = {"scheduler": tuple(SCHEDULER_COMMANDS), "proxy-worker": tuple(PROXY_COMMANDS)}
EVERY_COMMAND = Path(__file__).with_name("every_command.py")


@pytest.mark.parametrize("program", COMMANDS)
def test_an_installed_program_lists_its_commands(program: str) -> None:
    done = run_installed([program, "--help"], os.environ, timeout_s=120)

    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()]
    assert [name for name in COMMANDS[program] if name not in listed] == []


@pytest.mark.parametrize("program", COMMANDS)
def test_all_that_a_program_loads_for_any_of_its_commands_is_there(program: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EVERY_COMMAND), program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    called = done.stdout.splitlines()
    assert called[0] == program
    assert {line.split()[1] for line in called[1:]} == set(COMMANDS[program])
