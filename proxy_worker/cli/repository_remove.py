"""`proxy-worker repository remove`: give up a restore point."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.points import point_names
from proxy_worker.repository.withdrawal import end_point

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def remove_point(
    repository: Location,
    point: Annotated[str, typer.Argument(metavar="POINT", help="The restore point, as `list` shows it.")],
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove a restore point. No other point is touched; `collect` frees the space afterwards.

    \b
    Examples:
      proxy-worker repository remove /backup/main 20261122T190102Z-1a2b3c4d --passphrase-file main.passphrase
    """
    with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
        # By names, so that a damaged point can be removed as well.
        names = [name.split("/") for name in point_names(opened.access.store)]
        found = [vm_id for _, vm_id, run in names if run == point]
        removed = [vm_id for vm_id in found if end_point(opened.access, vm_id=vm_id, run=point)]
    if not removed:
        raise PointNotFoundError(
            f"restore point {point}",
            why=f"there is none in {repository}",
            remedy="See `proxy-worker repository list`.",
        )
    typer.echo(json.dumps({"removed": point}) if as_json else f"removed restore point {point}")
