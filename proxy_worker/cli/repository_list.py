"""`proxy-worker repository list`: the restore points of a repository."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.contract.errors import DamageError
from proxy_worker.program.units import size

if TYPE_CHECKING:
    from proxy_worker.repository.points import Point

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def list_points(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the restore points, by VM, oldest first.

    \b
    Examples:
      proxy-worker repository list /backup/main --passphrase-file main.passphrase
      proxy-worker repository list /backup/main --key-file main.key --json | jq '.[-1].point'
    """
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
