"""`proxy-worker repository`: make, list, check and mend repositories, and hand out keys to them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import OptionError, open_repository
from proxy_worker.cli.repository_keys import app as keys_app
from proxy_worker.cli.repository_space import collect_repository, remove_point
from proxy_worker.contract.errors import DamageError
from proxy_worker.program.units import size
from proxy_worker.repository.check import check
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.findings import CheckReport
from proxy_worker.repository.points import Point
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import DEFAULT_BLOCK_SIZE, Repository, open_store
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store.local import LocalStore

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make, list, check and mend repositories.")
app.add_typer(keys_app, name="keys")
app.command("remove")(remove_point)
app.command("collect")(collect_repository)

_SIZE = re.compile(r"(\d+)(KiB|MiB)?")
_UNITS = {None: 1, "KiB": 1024, "MiB": 1024 * 1024}

Location = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The repository's folder.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the passphrase, in one line.")
]
KeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="A write or read key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    block_size: Annotated[
        str, typer.Option(metavar="SIZE", help="64KiB to 4MiB, a power of two; fixed from now on.")
    ] = "256KiB",
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Store in clear; whoever reads the folder reads the disks.")
    ] = False,
) -> None:
    """Make a repository in a folder; the folder is made where it is missing."""
    if no_encryption == (passphrase_file is not None):
        raise OptionError(
            "repository init",
            why="it takes either --passphrase-file or --no-encryption",
            remedy="Keep a copy of the passphrase elsewhere: without it nothing can be restored.",
        )
    passphrase = load_credential(passphrase_file=passphrase_file).passphrase
    store = LocalStore(Path(repository))
    with Repository.create(store, passphrase=passphrase, block_size=_parsed_size(block_size)) as made:
        typer.echo(f"made repository {made.id} in {repository}, block size {size(made.block_size)}")


@app.command("list")
def list_points(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the restore points, by VM, oldest first."""
    with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
        points, damaged = opened.points(), dict(opened.damaged_points)
    if as_json:
        typer.echo(json.dumps([_point_json(point) for point in points], indent=2))
    else:
        typer.echo("\n".join(_point_rows(points)))
    if damaged:
        raise DamageError(
            f"{len(damaged)} restore points of {repository} can't be read",
            why="; ".join(str(error) for error in damaged.values()),
        )


@app.command("check")
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
    """Read everything, and name what is damaged and which restore points need it; exit code 5 if there is any."""
    if scrub_only:
        report = scrub(open_store(repository))
    else:
        with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
            report = check(opened.access)
    if as_json:
        typer.echo(json.dumps(_report_json(report), indent=2))
    else:
        _show_report(report)
    if report.findings:
        raise DamageError(
            f"repository {repository} is damaged",
            why=f"{len(report.findings)} of its objects not as it should be"
            if len(report.findings) == 1
            else f"{len(report.findings)} of its objects not as they should be",
            remedy="Restore them from a copy; for a damaged index, run `proxy-worker repository reindex`.",
        )


@app.command("reindex")
def reindex_repository(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild index fragments that are missing or damaged from what packs say of themselves."""
    with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
        report = reindex(opened.access)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "packs": report.packs,
                    "fragments": report.fragments,
                    "dropped": list(report.dropped),
                    "unreadable": list(report.unreadable_packs),
                }
            )
        )
        return
    typer.echo(f"indexed {report.packs} packs again in {report.fragments} fragments")
    for name in report.dropped:
        typer.echo(f"  replaced {name}")
    for pack in report.unreadable_packs:
        typer.echo(f"  left out {pack}")


def _parsed_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise OptionError(
            f"--block-size {text}", why="it is not a size", remedy=f"Say e.g. {DEFAULT_BLOCK_SIZE} or 256KiB."
        )
    return int(match[1]) * _UNITS[match[2]]


def _point_json(point: Point) -> dict[str, object]:
    return {
        "vm": point.vm_name,
        "vm_id": point.vm_id,
        "point": point.run,
        "created": datetime.fromtimestamp(point.created_at, UTC).isoformat(),
        "job": point.job,
        "disks": [
            {"key": disk.key, "size_bytes": disk.size_bytes, "stored_bytes": disk.stored_bytes}
            for disk in point.disks
        ],
    }


def _point_rows(points: list[Point]) -> list[str]:
    rows = [("VM", "POINT", "CREATED", "SIZE", "STORED", "DISKS")]
    for point in points:
        created = datetime.fromtimestamp(point.created_at, UTC).astimezone()
        rows.append(
            (
                point.vm_name,
                point.run,
                f"{created:%Y-%m-%d %H:%M:%S}",
                size(sum(disk.size_bytes for disk in point.disks)),
                size(sum(disk.stored_bytes for disk in point.disks)),
                " ".join(disk.key for disk in point.disks),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _report_json(report: CheckReport) -> dict[str, object]:
    return {
        "ok": not report.findings,
        "points": report.points,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "duration_seconds": report.duration_seconds,
        "damage": [
            {
                "object": finding.name,
                "kind": finding.kind,
                "problem": finding.problem,
                "needed_by": [
                    {"vm": use.vm, "point": use.run, "disk": use.disk_key} for use in finding.needed_by or ()
                ],
            }
            for finding in report.findings
        ],
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
