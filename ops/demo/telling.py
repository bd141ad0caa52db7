"""Tell a story in a state folder, and leave no process behind, however it ends."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.markup import escape

from ops.demo.errors import DemoError
from ops.demo.processes import Supervisor, end_marked
from ops.demo.terminal import console
from ops.demo.valkey import free_port

INTERRUPTED = 130
FLOWER_PORT = 5555
"""Where people expect Flower; another one where somebody listens there already."""


class Tellable(Protocol):
    """A story."""

    def tell(self, *, keep: bool) -> None:
        """All of it; raises `DemoError` where something isn't as it should be."""


Begin = Callable[[Path, int, int, Supervisor], Tellable]
"""Makes a story of the state folder, Redis' and Flower's ports, and who starts its processes."""


def main(program: str, about: str | None, state: Path, begin: Begin) -> int:
    """Parse the options of `make PROGRAM`, tell the story that `begin` makes, and return the exit code."""
    parser = argparse.ArgumentParser(prog=f"make {program}", description=about)
    parser.add_argument("--state", type=Path, default=state, help="folder for everything it makes")
    parser.add_argument("--flower-port", type=int, default=FLOWER_PORT, help="0 takes a free one")
    parser.add_argument("--keep", action="store_true", help=f"leave the fleet running (make {program} KEEP=1)")
    parser.add_argument("--stop", action="store_true", help=f"end a fleet that was kept (make {program}-stop)")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    if arguments.stop:
        console.print(f"ended {end_marked(state, term_timeout_s=20)} processes")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _tell(program, state, begin, flower_port=arguments.flower_port, keep=arguments.keep)
    except DemoError as error:
        console.print(f"[bold red]{program}: {escape(str(error))}[/]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; nothing is left running")
        return INTERRUPTED


def _tell(program: str, state: Path, begin: Begin, *, flower_port: int, keep: bool) -> int:
    end_marked(state, term_timeout_s=20)
    _clean(state)
    supervisor = Supervisor(state)
    try:
        begin(state, free_port(), _port_like(flower_port), supervisor).tell(keep=keep)
    except BaseException:
        supervisor.stop()
        raise
    if keep:
        supervisor.keep()
        console.print(f"The fleet runs on; `make {program}-stop` ends it.")
    else:
        supervisor.stop()
        console.print("The fleet has ended.")
    return 0


def _clean(state: Path) -> None:
    """Remove what an earlier telling left."""
    if state.exists():
        shutil.rmtree(state)
    state.mkdir()


def _port_like(wanted: int) -> int:
    if not wanted:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flower will: what has ended holds no port
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", wanted))
            return wanted
    return free_port()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
