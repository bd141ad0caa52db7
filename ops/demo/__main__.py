"""`make demo`: tell the story, and leave no process behind, however it ends."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from ops.demo.errors import DemoError
from ops.demo.layout import Layout
from ops.demo.processes import Supervisor, end_marked
from ops.demo.story import Story, clean_state
from ops.demo.terminal import console
from ops.demo.valkey import free_port

INTERRUPTED = 130
FLOWER_PORT = 5555
"""Where people expect Flower; another one where somebody listens there already."""


def main() -> int:
    """Parse the options, run the demo, return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".demo"), help="folder for everything it makes")
    parser.add_argument("--keep", action="store_true", help="leave the fleet running (make demo KEEP=1)")
    parser.add_argument("--stop", action="store_true", help="end a fleet that was kept (make demo-stop)")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    if arguments.stop:
        console.print(f"ended {end_marked(state, term_timeout_s=20)} processes")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(state, keep=arguments.keep)
    except DemoError as error:
        console.print(f"[bold red]demo: {error}[/]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; nothing is left running")
        return INTERRUPTED


def run(state: Path, *, keep: bool) -> int:
    """Tell the story in `state`, from nothing."""
    end_marked(state, term_timeout_s=20)
    clean_state(state)
    layout = Layout(state, redis_port=free_port(), flower_port=_port_like(FLOWER_PORT))
    supervisor = Supervisor(state)
    try:
        Story(layout, supervisor).tell(keep=keep)
    except BaseException:
        supervisor.stop()
        raise
    if keep:
        supervisor.keep()
        console.print("The fleet runs on; `make demo-stop` ends it.")
    else:
        supervisor.stop()
        console.print("The fleet has ended.")
    return 0


def _port_like(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flower will: what has ended holds no port
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", wanted))
            return wanted
    return free_port()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
