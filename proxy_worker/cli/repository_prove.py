"""`proxy-worker repository prove`: read what wasn't read for long, mend what is damaged, restore samples."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from proxy_worker.cli.found_damage import damage_json
from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.cli.store_requests import requests_json, show_requests
from proxy_worker.contract.errors import DamageError
from proxy_worker.program.units import size
from proxy_worker.repository.proving import ProofReport, ProofSettings, prove

_MIB = 1024 * 1024
_DAY_S = 24 * 3600.0

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def prove_repository(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    days: Annotated[
        float,
        typer.Option(metavar="DAYS", min=0.01, help="Everything is to be read once in so many days."),
    ] = 30.0,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", min=0, help="Read for at most so long; the next run goes on."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="MIB", min=0.1, help="Read at most so many MiB per second.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Read everything, however recently it was read.")
    ] = False,
    linked: Annotated[
        str | None,
        typer.Option(metavar="REPOSITORY", help="Another repository of the same VMs, to fetch lost blocks from."),
    ] = None,
    linked_passphrase_file: PassphraseFile = None,
    linked_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Read what was read longest ago, mend what is damaged, and restore samples; exit code 5 if damage is left.

    Each run reads its share, so that a daily one gets through in the given days. What is damaged is replaced by
    other copies, here or in a linked repository; else the next backup stores it anew, if the VM still has it.

    \b
    Examples:
      proxy-worker repository prove /backup/main --key-file read.key --minutes 60
      proxy-worker repository prove /backup/main --passphrase-file main.passphrase --everything
      proxy-worker repository prove /backup/main --key-file read.key --linked /vault --linked-key-file vault.key
    """
    settings = ProofSettings(
        period_s=days * _DAY_S,
        most_s=minutes * 60 if minutes is not None else None,
        bytes_per_s=int(rate * _MIB) if rate else None,
        everything=everything,
    )
    with ExitStack() as stack:
        opened = stack.enter_context(
            open_repository(repository, passphrase_file=passphrase_file, key_file=key_file)
        )
        others = []
        if linked is not None:
            other = open_repository(linked, passphrase_file=linked_passphrase_file, key_file=linked_key_file)
            others.append(stack.enter_context(other))
        report = prove(opened, settings, linked=others)
    if as_json:
        typer.echo(json.dumps({**_as_json(report), "requests": requests_json(opened.access.store)}, indent=2))
    else:
        _show(report)
        show_requests(opened.access.store)
    if any(point.damaged for point in report.points):
        raise DamageError(
            f"restore points of {repository} are damaged",
            why=f"{sum(point.damaged for point in report.points)} need what is lost",
            remedy="Back up their VMs: what a disk still has is stored anew. Or give a repository with --linked.",
        )


def _as_json(report: ProofReport) -> dict[str, object]:
    repaired = report.repaired
    return {
        "packs": report.packs,
        "fragments": report.fragments,
        "read_bytes": report.read_bytes,
        "sampled": report.sampled,
        "made_parity": report.made_parity,
        "overdue": report.overdue,
        "oldest_proof": _moment(report.oldest),
        "damage": damage_json(report.findings),
        "repair": {
            "moved_chunks": repaired.moved_chunks,
            "fetched": repaired.fetched,
            "rebuilt": list(repaired.rebuilt),
            "mended": repaired.mended,
            "left": repaired.left,
        },
        "points": [
            {**asdict(point), "proven_at": _moment(point.proven_at), "sampled_at": _moment(point.sampled_at)}
            for point in report.points
        ],
        "duration_seconds": report.duration_seconds,
    }


def _show(report: ProofReport) -> None:
    typer.echo(
        f"read {size(report.read_bytes)} in {report.packs} packs and {report.fragments} index fragments, "
        f"restored samples of {report.sampled} restore points, {report.duration_seconds:.1f} s"
    )
    for finding in report.findings:
        typer.echo(f"damaged: {finding}")
    repaired = report.repaired
    if repaired.moved_chunks or repaired.fetched:
        typer.echo(f"repair: saved {repaired.moved_chunks} chunks, fetched {repaired.fetched} from elsewhere")
    if report.made_parity:
        typer.echo(f"mended: {report.made_parity} packs whose parity was lost or damaged have it again")
    for name in repaired.rebuilt:
        typer.echo(f"mended: {name} was made anew")
    for name in repaired.mended:
        typer.echo(f"mended: nothing is lost with {name}; `repository collect` removes it")
    for name in repaired.left:
        typer.echo(f"left: {name}")
    for point in report.points:
        if point.damaged:
            typer.echo(f"waits for repair: restore point {point.run}")
    if report.overdue:
        typer.echo(f"overdue: {report.overdue} packs and fragments; give it more time, or run it more often")
    if not report.findings:
        typer.echo(f"no damage found; {_how_far(report.oldest)}")


def _how_far(oldest: int | None) -> str:
    if oldest is None:
        return "there is nothing to read yet"
    return f"everything was proven since {_moment(oldest)}" if oldest else "not everything has been read yet"


def _moment(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
