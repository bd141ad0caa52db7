"""Following a run to its end, and what its end means for a command: what it prints and its exit code."""

from __future__ import annotations

import sys
import time

import typer

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.printing import console, print_json
from scheduler.cli.printing import show as print_view
from scheduler.cli.records import RunRecord, run_record
from scheduler.cli.run_view import summary
from scheduler.cli.watching import watch_of_run
from scheduler.state.asking import find_run
from scheduler.state.models import RunState
from scheduler.state.store import State

EXIT_CODES = {RunState.SUCCEEDED: 0, RunState.CANCELLED: CancelledError.exit_code}
"""How a command that waits for a run ends; any other state is a failure."""


def read_run(state: State, run_id: str, window: LedgerWindow | None = None) -> RunRecord:
    """A run as it is now; raises `NoSuchRunError`."""
    with state.read() as session:
        run = find_run(session, run_id)
        live = window.look(session) if window is not None and not run.state.final else Live()
        return run_record(session, run, live, now=time.time())


def follow(state: State, run_id: str, *, as_json: bool) -> None:
    """Watch a run until it has ended, print it, and exit: 0 only if every disk succeeded, 11 if cancelled, else 1.

    With `as_json` standard output gets nothing but the JSON at the end, and progress goes to a terminal on
    standard error, if there is one.
    """
    window = LedgerWindow()
    out = console(sys.stderr if as_json else sys.stdout)
    watch = watch_of_run(lambda: read_run(state, run_id, window), run_id)
    run = watch.until_ended(out, quiet=as_json and not out.is_terminal)
    show(run, as_json=as_json)
    raise typer.Exit(EXIT_CODES.get(RunState(run.state), ProxyfleetError.exit_code))


def show(run: RunRecord, *, as_json: bool) -> None:
    """Print a run."""
    if as_json:
        print_json(run.model_dump(mode="json"))
    else:
        print_view(summary(run, console()))
