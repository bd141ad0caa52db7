"""`scheduler status`: what goes on, at a glance."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from scheduler.cli.arguments import AsJson
from scheduler.cli.expiry import expiry_warnings
from scheduler.cli.keys import reading_keys
from scheduler.cli.live import LedgerWindow
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.printing import console, print_json, show
from scheduler.cli.status_record import StatusRecord, status_record
from scheduler.cli.status_view import live_view, whole_view
from scheduler.server_backup.nightly import backup_warnings
from scheduler.state.lock import servers_of
from scheduler.state.store import State

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LOOK_EVERY_S = 1.0
ENDING = {"q", "Q"}


@app.command()
def status(
    once: Annotated[bool, typer.Option("--once", help="Print it once instead of keeping it up to date.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show runs, disks, proxies with their slots, what waits for what, and what needs attention.

    In a terminal it is kept up to date until `q` or Ctrl-C; space shows the next disks.

    \b
    Examples:
      scheduler status
      scheduler status --once
      scheduler status --json | jq '.waiting'
    """
    window = LedgerWindow()
    out = console()
    with opened_state() as opened:
        if as_json:
            print_json(look(opened, window).model_dump(mode="json"))
        elif once or not out.is_terminal or out.is_dumb_terminal:
            show(whole_view(look(opened, window), out))
        else:
            _live(opened, window, out)


def look(opened: State, window: LedgerWindow) -> StatusRecord:
    servers = servers_of(opened)
    with opened.read() as session:
        live = window.look(session)
        settings = configuration()
        warnings = (
            *expiry_warnings(settings.pki_dir),
            *backup_warnings(session, settings.server_backup, time.time()),
        )
        return status_record(session, live, servers=servers, problem=window.problem, warnings=warnings)


def _live(opened: State, window: LedgerWindow, out: Console) -> None:
    page = 0
    first = live_view(look(opened, window), out, page=page)
    try:
        with reading_keys() as read_key, Live(first, console=out, screen=True, auto_refresh=False) as live:
            while not ENDING.intersection(pressed := read_key(LOOK_EVERY_S)):
                page += pressed.count(" ")
                live.update(live_view(look(opened, window), out, page=page), refresh=True)
    except KeyboardInterrupt:
        sys.exit(0)
