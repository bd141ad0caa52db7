"""`proxy-worker repository check`: read everything, and say what is damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from proxy_worker.cli.found_damage import damage_json
from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.cli.store_requests import requests_json, show_requests
from proxy_worker.contract.errors import DamageError
from proxy_worker.program.units import size
from proxy_worker.repository.unlocking import open_store

if TYPE_CHECKING:
    from proxy_worker.repository.findings import CheckReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def check_repository(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    scrub_only: Annotated[
        bool, typer.Option("--scrub", help="Compare stored checksums only, which needs no key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read everything, and name what is damaged and which restore points need it; exit code 5 if there is any.

    \b
    Examples:
      proxy-worker repository check /backup/main --passphrase-file main.passphrase
      proxy-worker repository check /backup/main --scrub
    """
    if scrub_only:
        from proxy_worker.repository.scrub import scrub  # noqa: PLC0415 - not wanted otherwise

        store = open_store(repository)
        report = scrub(store)
    else:
        opening = Opening(repository, passphrase_file=passphrase_file, key_file=key_file)
        from proxy_worker.repository.check import check  # noqa: PLC0415 - loaded while that works

        with opening.repository() as opened:
            report = check(opened.access)
            store = opened.access.store
    if as_json:
        typer.echo(json.dumps({**_report_json(report), "requests": requests_json(store)}, indent=2))
    else:
        _show_report(report)
        show_requests(store)
    if report.findings:
        raise DamageError(
            f"repository {repository} is damaged",
            why=f"{len(report.findings)} of its objects not as it should be"
            if len(report.findings) == 1
            else f"{len(report.findings)} of its objects not as they should be",
            remedy="`proxy-worker repository prove --everything` mends what can be mended, and `collect` then "
            "removes what nobody needs any more; else restore them from a copy. For a damaged index, run "
            "`proxy-worker repository reindex`.",
        )


def _report_json(report: CheckReport) -> dict[str, object]:
    return {
        "ok": not report.findings,
        "points": report.points,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "duration_seconds": report.duration_seconds,
        "damage": damage_json(report.findings),
        "notes": list(report.notes),
    }


def _show_report(report: CheckReport) -> None:
    rate = report.read_bytes / max(report.duration_seconds, 1e-9)
    typer.echo(
        f"read {size(report.read_bytes)} in {report.packs} packs and {report.points} restore points, "
        f"{report.duration_seconds:.1f} s, {size(int(rate))}/s"
    )
    for finding in report.findings:
        typer.echo(f"damaged: {finding}")
    for note in report.notes:
        typer.echo(f"harmless: {note}")
    if not report.findings:
        typer.echo("no damage found")
