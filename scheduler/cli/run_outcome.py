"""Following a run to its end, and what its end means for a command: what it prints and its exit code."""

from __future__ import annotations

import time
from typing import NoReturn

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.printing import console, print_json
from scheduler.cli.printing import show as print_view
from scheduler.cli.records import RunRecord, run_record
from scheduler.cli.run_view import summary
from scheduler.cli.watching import follow_to_end, watch_of_run
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


def follow(state: State, run_id: str, *, as_json: bool) -> NoReturn:
    """Watch a run until it has ended, print it, and exit: 0 if every disk succeeded, 11 if cancelled, else 1."""
    window = LedgerWindow()
    follow_to_end(
        watch_of_run(lambda: read_run(state, run_id, window), run_id),
        lambda run: summary(run, console()),
        lambda run: EXIT_CODES.get(RunState(run.state), ProxyfleetError.exit_code),
        as_json=as_json,
    )


def show(run: RunRecord, *, as_json: bool) -> None:
    """Print a run."""
    if as_json:
        print_json(run.model_dump(mode="json"))
    else:
        print_view(summary(run, console()))
