"""`proxy-worker repository collect`: free what no restore point needs any more."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.cli.store_requests import requests_json, show_requests
from proxy_worker.program.units import size

if TYPE_CHECKING:
    from proxy_worker.repository.collector_report import CollectionReport

_MIB = 1024 * 1024
_HOUR_S = 3600.0

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def collect_repository(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be freed.")] = False,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for backups at work; else the next time."),
    ] = 0.0,
    end_runs_after: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            min=0,
            help="Give up backups that nobody has worked at for so long; readers too. At work, they say so daily.",
        ),
    ] = 168.0,
    unused: Annotated[
        float, typer.Option(metavar="PERCENT", min=0, help="How much that is dead may stay, of what is live.")
    ] = 3.0,
    rate: Annotated[
        float | None, typer.Option(metavar="MIB", min=0.1, help="Move at most so many MiB per second.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Free what no restore point needs, beside backups and restores; killed anywhere, the next one goes on.

    \b
    Examples:
      proxy-worker repository collect /backup/main --passphrase-file main.passphrase --dry-run
      proxy-worker repository collect /backup/main --passphrase-file main.passphrase --rate 50
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=key_file)
    from proxy_worker.repository.collector import CollectorSettings, collect  # noqa: PLC0415 - loaded while that works

    settings = CollectorSettings(
        dry_run=dry_run,
        unused_percent=unused,
        wait_s=wait,
        end_runs_after_s=end_runs_after * _HOUR_S,
        bytes_per_s=int(rate * _MIB) if rate else None,
    )
    with opening.repository() as opened:
        report = collect(opened, settings)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "requests": requests_json(opened.access.store)}, indent=2))
    else:
        _show(report)
        show_requests(opened.access.store)


def _show(report: CollectionReport) -> None:
    verb = "would free" if report.dry_run else "freed"
    typer.echo(
        f"{verb} {size(report.freed_bytes)} in {report.freed_packs} packs; restore points need "
        f"{size(report.live_bytes)} ({report.points} points, {report.packs} packs, {report.duration_seconds:.1f} s)"
    )
    if report.rewritten_packs:
        moved = "would move" if report.dry_run else "moved"
        typer.echo(f"{moved} {size(report.moved_bytes)} out of {report.rewritten_packs} packs that are mostly dead")
    for kept in report.kept:
        typer.echo(f"kept: {kept.packs} packs, {size(kept.size_bytes)}: {kept.why}")
    if report.extended_locks:
        typer.echo(f"locked for longer: {report.extended_locks} objects that restore points need")
    for run in report.ended_runs:
        typer.echo(f"given up: run {run}")
    for run in report.waiting_for:
        typer.echo(f"waiting for: run {run}")
    for note in report.notes:
        typer.echo(f"note: {note}")
