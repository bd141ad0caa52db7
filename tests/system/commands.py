"""Commands of `scheduler` and `proxy-worker` that needn't be loaded, which takes two thirds of a second of CPU.

Each is a process of its own, with the words, environment and output that a shell would give it, forked from one
that has loaded the modules. How the installed programs begin is shown where they are run themselves.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.cli import COMMANDS as PROXY_COMMANDS
from scheduler.cli import COMMANDS as SCHEDULER_COMMANDS

BIN: Final = Path(sys.executable).parent
_PROGRAMS: Final = {"scheduler": "scheduler.__main__", "proxy-worker": "proxy_worker.__main__"}
_COMMANDS: Final = (*SCHEDULER_COMMANDS.values(), *PROXY_COMMANDS.values())
_FORKED: Final = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload([__name__, *_PROGRAMS.values(), *(module for module, _ in _COMMANDS)])


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def run_forked(
    words: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = 120, cwd: Path | None = None
) -> Done:
    """Run a command to its end, in this folder; raises `TimeoutError` once it is killed for taking longer."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKED.Process(target=_become, args=(list(words), dict(environment), cwd, out, err))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(words)} takes longer than {timeout_s:.0f} s:\n{out.read_text()}")
        return Done(process.exitcode, out.read_text(), err.read_text())


def run_installed(words: Sequence[str], environment: Mapping[str, str], *, timeout_s: float) -> Done:
    """Run a command as it is installed, in this thread's network; as `run_forked` otherwise."""
    command = [str(BIN / words[0]), *words[1:]]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{' '.join(words)} takes longer than {timeout_s:.0f} s:\n{error.stdout!r}") from error
    return Done(done.returncode, done.stdout, done.stderr)


def _become(words: list[str], environment: dict[str, str], cwd: Path | None, out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = words
    importlib.import_module(_PROGRAMS[words[0]]).main()
