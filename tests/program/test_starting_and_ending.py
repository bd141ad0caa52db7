"""How both commands begin and end: Ctrl-C while they load, output that can't be written, no tracebacks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_worker.program.commands import INTERRUPTED
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore

PROGRAMS = ("proxy_worker", "scheduler")
NO_OUTPUT = 12

INTERRUPTED_WHEN_LOADING = """
import importlib, os, signal, sys
program, moment, *sys.argv[1:] = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
importlib.import_module(f"{program}.__main__").main()
"""
"""Runs a program that gets SIGINT when it begins to load a module."""


def run(*arguments: str | Path, stdout: str = "") -> subprocess.CompletedProcess[str]:
    with Path(stdout or "/dev/null").open("w") as out:
        return subprocess.run(
            [sys.executable, *arguments], stdout=out, stderr=subprocess.PIPE, text=True, check=False
        )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_full_standard_output_is_an_error_in_one_line(program: str) -> None:
    result = run("-m", program, "--version", stdout="/dev/full")

    assert result.returncode == NO_OUTPUT
    assert result.stderr == (
        f"{program.replace('_', '-')}: standard output: No space left on device. Send it where there is room.\n"
    )


def test_what_failed_counts_more_than_a_full_standard_output() -> None:
    result = run("-m", "proxy_worker", "repository", "list", "/nonexistent", "--json", stdout="/dev/full")

    assert (result.returncode, result.stderr.count("\n")) == (4, 1)


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_while_a_program_loads_ends_it_without_a_word(program: str) -> None:
    result = run("-c", INTERRUPTED_WHEN_LOADING, program, "typer", "--help")

    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_ctrl_c_while_a_command_loads_its_work_ends_it_too(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "disk").write_bytes(b"a disk")
    Repository.create(LocalStore(tmp_path / "repository"), passphrase=b"correct horse").close()

    result = run(
        "-c", INTERRUPTED_WHEN_LOADING, "proxy_worker", "proxy_worker.mover.backup", "backup", tmp_path / "disk",
        "--repository", tmp_path / "repository", "--passphrase-file", tmp_path / "passphrase", "--vm", "web",
        "--disk", "scsi0:0",
    )  # fmt: skip

    assert (result.returncode, result.stderr) == (INTERRUPTED, "")
