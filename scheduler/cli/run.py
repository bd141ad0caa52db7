"""`scheduler run`: what happened, what happens now."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from sqlalchemy import select

from proxy_worker.program.units import size
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, RunId, Wait
from scheduler.cli.finding import find_job
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, duration, moment, note, print_json, show_rows, state
from scheduler.cli.records import RunRecord, run_record
from scheduler.cli.report import write_page
from scheduler.cli.run_outcome import follow, read_run
from scheduler.cli.run_outcome import show as show_run
from scheduler.reports.run_report import run_report
from scheduler.reports.text import plain
from scheduler.state.asking import ask_to_cancel, ask_to_retry, find_run
from scheduler.state.models import Run

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Look at runs, watch, cancel and retry them.",
)


@app.command("list")
def list_runs(
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only runs of this job.", autocompletion=completion.jobs)
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first.

    \b
    Examples:
      scheduler run list
      scheduler run list --job nightly --limit 5
      scheduler run list --json | jq '.[0].state'
    """
    newest = select(Run).order_by(Run.created_at.desc(), Run.id.desc()).limit(limit)
    window = LedgerWindow()
    with opened_state() as opened, opened.read() as session:
        if job is not None:
            newest = newest.where(Run.job == find_job(session, job).name)
        runs = session.scalars(newest).all()
        live = window.look(session) if any(not run.state.final for run in runs) else Live()
        records = [run_record(session, run, live, now=time.time()) for run in runs]
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
    elif not records:
        note("There are no runs yet. `scheduler job start JOB` starts one.")
    else:
        _print_runs(records)


@app.command()
def show(run: RunId, as_json: AsJson = False) -> None:
    """Show a run. It has its figures, its disks, which proxy took which, and what went wrong.

    \b
    Examples:
      scheduler run show 20261122T190102Z-1a2b3c4d
      scheduler run show 20261122T19 --json | jq '.disks[] | select(.state != "succeeded")'
    """
    with opened_state() as opened:
        show_run(read_run(opened, run, LedgerWindow()), as_json=as_json)


@app.command()
def watch(run: RunId, as_json: AsJson = False) -> None:
    """Watch a run until it has ended; exits as `job start --wait` does.

    \b
    Examples:
      scheduler run watch 20261122T190102Z-1a2b3c4d
    """
    with opened_state() as opened:
        run_id = read_run(opened, run).run
        follow(opened, run_id, as_json=as_json)


@app.command()
def cancel(run: RunId) -> None:
    """Cancel a run that is under way. VMs that are done keep their restore points.

    \b
    Examples:
      scheduler run cancel 20261122T190102Z-1a2b3c4d
    """
    with opened_state() as opened:
        with opened.write() as session:
            run_id = ask_to_cancel(session, run).id
        note(f"Run {run_id} is being cancelled.")
        warn_without_service(opened, "it ends")


@app.command()
def retry(
    run: RunId,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Try the failed and cancelled VMs of a run again, now.

    \b
    Examples:
      scheduler run retry 20261122T190102Z-1a2b3c4d --wait
    """
    with opened_state() as opened:
        if wait:
            require_service(opened, f"run {run!r} was not retried")
        with opened.write() as session:
            run_id = ask_to_retry(session, run).id
        if wait:
            follow(opened, run_id, as_json=as_json)
        elif as_json:
            print_json(read_run(opened, run_id).model_dump(mode="json"))
        else:
            note(f"The failed disks of run {run_id} are tried again. Watch it with `scheduler run watch {run_id}`.")
        warn_without_service(opened, "that starts")


@app.command()
def report(
    run: RunId,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it as a page with a picture of the run; `-` is standard output."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report what became of a run. It names its VMs, which proxy had which disk when, and where the time went.

    The page needs nothing but itself: it can be mailed, kept and opened anywhere.

    \b
    Examples:
      scheduler run report 20261122T190102Z-1a2b3c4d
      scheduler run report 20261122T19 --html report.html
      scheduler run report 20261122T19 --json | jq '.disks[].attempts'
    """
    with opened_state() as opened, opened.read() as session:
        made = run_report(session, find_run(session, run))
    if html is not None:
        write_page(html, made)
    if as_json:
        print_json(made.model_dump(mode="json"))
    elif html is None:
        sys.stdout.write(plain(made))


def _print_runs(records: list[RunRecord]) -> None:
    columns: Columns = {
        "RUN": [record.run for record in records],
        "JOB": [Text(record.job) for record in records],
        "STATE": [state(record.state) for record in records],
        "DISKS": [f"{record.disks_in(('succeeded',))}/{len(record.disks)}" for record in records],
        "STARTED": [moment(record.started) for record in records],
        "TIME": [duration(record.duration_seconds) for record in records],
        "SIZE": [size(record.size_bytes) for record in records],
        "STORED": [size(record.stored_bytes) for record in records],
    }
    show_rows(columns, right=("DISKS", "TIME", "SIZE", "STORED"), spare=("STARTED", "SIZE", "TIME"))
