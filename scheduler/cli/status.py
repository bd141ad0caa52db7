"""`scheduler status`: what goes on, at a glance."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy_worker.program.units import size
from scheduler.cli.arguments import AsJson
from scheduler.cli.expiry import expiry_warnings
from scheduler.cli.live import LedgerWindow
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.printing import (
    ago,
    clock,
    console,
    duration,
    fitting,
    moment,
    plural,
    print_json,
    rate,
    show,
    state,
    table,
)
from scheduler.cli.records import DiskRecord, RunRecord
from scheduler.cli.restore_record import restore_line
from scheduler.cli.run_view import headline
from scheduler.cli.status_record import StatusRecord, status_record
from scheduler.server_backup.nightly import backup_warnings
from scheduler.state.lock import servers_of
from scheduler.state.store import State

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LOOK_EVERY_S = 1.0
REASONS_SHOWN = 5
LINES_BESIDE_DISKS = 16


@app.command()
def status(
    once: Annotated[bool, typer.Option("--once", help="Print it once instead of keeping it up to date.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show runs, disks, proxies with their slots, and what waits for what. Ctrl-C ends it.

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
            print_json(_look(opened, window).model_dump(mode="json"))
        elif once or not out.is_terminal or out.is_dumb_terminal:
            show(status_view(_look(opened, window), out, room=None))
        else:
            _live(opened, window, out)


def status_view(record: StatusRecord, out: Console, *, room: int | None) -> RenderableType:
    """The whole picture; with `room`, at most so many lines of disks."""
    warnings = [_reason(f"warning: {warning}") for warning in record.warnings]
    parts: list[RenderableType] = [*_health(record), *warnings, "", _proxies(record), ""]
    if not record.runs and not record.restores:
        parts.append(Text("Nothing is running.", style="dim"))
    for run in record.runs:
        parts.append(headline(run))
        parts += [_reason(line) for line in _problems(run)]
    parts += [restore_line(restore) for restore in record.restores]
    moving = [disk for run in record.runs for disk in run.disks if disk.state in {"running", "paused"}]
    if moving:
        parts += ["", fitting(out, [_disks(moving[:room], mode=True), _disks(moving[:room], mode=False)])]
        if room is not None and len(moving) > room:
            parts.append(Text(f"and {plural(len(moving) - room, 'more disk')}", style="dim"))
    upkeep = [task for task in record.tasks if not task.task.startswith("disk.")]
    parts += [Text(f"{task.task}: {task.state}{f' on {task.proxy}' if task.proxy else ''}") for task in upkeep]
    for waiting in record.waiting[:REASONS_SHOWN]:
        parts.append(_reason(f"{plural(waiting.tasks, 'task')} waiting: {waiting.reason}"))
    if record.ended:
        parts += ["", _ended(record.ended)]
    return Group(*parts)


def _health(record: StatusRecord) -> list[Text]:
    text = Text.assemble(
        f"{moment(record.at)}  scheduler: ",
        Text("serving", style="green") if record.serving else Text("not serving", style="bold red"),
        f" ({record.scheduler})" if record.scheduler else "",
        f"  standing by: {', '.join(record.standing_by)}" if record.standing_by else "",
        "  ledger: ",
    )
    if record.ledger == "ok":
        return [text.append("ok", style="green").append(f"  slots: {record.used} of {record.slots} used")]
    return [text.append("unreachable", style="bold red"), Text(record.ledger, style="red")]


def _proxies(record: StatusRecord) -> RenderableType:
    if not record.proxies:
        return Text("No proxy has registered.", style="dim")
    made = table("PROXY", "SITE", "STATE", "SLOTS", "", keep=("PROXY", "STATE", "SLOTS"))
    for proxy in record.proxies:
        slots = proxy.slots or 0
        used = f"{proxy.used} of {slots}" if proxy.slots is not None else "-"
        bar = Text("■" * proxy.used, style="cyan").append("□" * max(0, slots - proxy.used), style="dim")
        made.add_row(Text(proxy.name), Text(proxy.site or "-"), state(proxy.state), used, bar)
    return made


def _disks(disks: Sequence[DiskRecord], *, mode: bool) -> Table:
    columns = ["VM", "DISK", "DONE", "RATE", "ETA", "PROXY", *(["MODE"] if mode else [])]
    made = table(*columns, right=("DONE", "RATE", "ETA"), keep=("DISK", "MODE"))
    for disk in disks:
        share = (
            f"{100 * disk.processed_bytes // disk.size_bytes}% of {size(disk.size_bytes)}"
            if disk.size_bytes
            else "-"
        )
        cells: list[str | Text] = [
            Text(disk.vm),
            disk.disk,
            share,
            rate(disk.rate),
            clock(disk.eta_s),
            Text(disk.proxy or "-"),
        ]
        made.add_row(*cells, *([disk.mode or "-"] if mode else []))
    return made


def _problems(run: RunRecord) -> list[str]:
    failed = [
        f"{disk.vm} {disk.disk} {disk.state}: {disk.reason}"
        for disk in run.disks
        if disk.reason and disk.state in {"failed", "waiting"}
    ]
    return [
        *failed[:REASONS_SHOWN],
        *([f"and {len(failed) - REASONS_SHOWN} more"] if len(failed) > REASONS_SHOWN else []),
    ]


def _reason(text: str) -> Text:
    return Text(f"  {text}", style="yellow")


def _ended(runs: Sequence[RunRecord]) -> Table:
    made = table("RUN", "JOB", "STATE", "DISKS", "TIME", "ENDED", right=("DISKS", "TIME"), keep=("RUN", "ENDED"))
    for run in runs:
        done = f"{run.disks_in(('succeeded',))}/{len(run.disks)}"
        took = duration(run.duration_seconds)
        made.add_row(run.run, Text(run.job), state(run.state), done, took, ago(run.ended))
    return made


def _look(opened: State, window: LedgerWindow) -> StatusRecord:
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
    def view() -> RenderableType:
        return status_view(_look(opened, window), out, room=max(3, out.height - LINES_BESIDE_DISKS))

    try:
        with Live(view(), console=out, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(LOOK_EVERY_S)
                live.update(view(), refresh=True)
    except KeyboardInterrupt:
        sys.exit(0)
